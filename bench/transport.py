"""The mesh's streams against what lies below them: `python -m bench.transport`.

Bulk and ping-pong over a stream on iroh and over a bare (mended) iroh stream; over a stream on the fast path
and over plain TLS with asyncio's streams. Two processes, the same frames, in turns. What counts is the ratio
of medians.
"""

import argparse
import asyncio
import os
import ssl
import statistics
import sys
import time
from asyncio.subprocess import PIPE
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from struct import Struct
from typing import Any, Protocol

import iroh

from mesh_llm.core.ids import NodeId
from mesh_llm.mesh.iroh_transport import IrohTransport
from mesh_llm.mesh.network.tls_identity import TlsIdentity
from mesh_llm.mesh.transport import Addresses, Connection, FastPath, Kind, NoRelays, Stream, Unreachable
from mesh_llm.runtime.clock import Clock

FRAME_BYTES = 256 * 1024
PING_BYTES = 64
SIZE = Struct(">Q")
BARE_ALPN = b"bench"


class Channel(Protocol):
    async def write(self, data: bytes) -> None: ...

    async def read(self) -> bytes: ...


class StreamChannel:
    def __init__(self, stream: Stream) -> None:
        self.write = stream.send
        self._stream = stream

    async def read(self) -> bytes:
        return await self._stream.receive() or b""


class BareIrohChannel:
    def __init__(self, stream: iroh.BiStream) -> None:
        self._sending, self._receiving = stream.send(), stream.recv()
        self.write = self._sending.write_all

    async def read(self) -> bytes:
        return await self._receiving.read(FRAME_BYTES)


class BareTlsChannel:
    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer

    async def write(self, data: bytes) -> None:
        self._writer.write(data)
        await self._writer.drain()

    async def read(self) -> bytes:
        return await self._reader.read(FRAME_BYTES)


async def answer(channel: Channel) -> None:
    """Take in as many bytes as are announced and say so; echo where none are."""
    head = await channel.read()
    announced, received = SIZE.unpack_from(head)[0], len(head) - SIZE.size
    if not announced:
        if received:
            await channel.write(head[SIZE.size :])
        while data := await channel.read():
            await channel.write(data)
        return
    while received < announced:
        received += len(await channel.read())
    await channel.write(b"k")


async def bulk(channel: Channel, size: int) -> float:
    """MB/s."""
    frame = os.urandom(FRAME_BYTES)
    await channel.write(SIZE.pack(size))
    began = time.perf_counter()
    for _ in range(size // FRAME_BYTES):
        await channel.write(frame)
    await channel.read()
    return size / (time.perf_counter() - began) / 1e6


async def ping_pong(channel: Channel, turns: int) -> float:
    """Median microseconds."""
    await channel.write(SIZE.pack(0))
    seconds: list[float] = []
    for _ in range(turns):
        began = time.perf_counter()
        await channel.write(b"x" * PING_BYTES)
        received = 0
        while received < PING_BYTES:
            received += len(await channel.read())
        seconds.append(time.perf_counter() - began)
    return statistics.median(seconds) * 1e6


def transport(fast_path: bool) -> Any:
    return IrohTransport.open(os.urandom(32), relays=NoRelays(), clock=Clock(), fast_path=fast_path)


async def bare_endpoint() -> iroh.Endpoint:
    options = iroh.EndpointOptions(
        preset=iroh.preset_minimal(),
        relay_mode=iroh.RelayMode.disabled(),
        alpns=[BARE_ALPN],
        secret_key=os.urandom(32),
    )
    return await iroh.Endpoint.bind(options)


async def serve() -> None:
    """Print where each of the four answers, and answer until standard input ends."""
    async with AsyncExitStack() as stack:
        tasks = await stack.enter_async_context(asyncio.TaskGroup())
        places: list[str] = []
        for fast_path in (False, True):
            node = await stack.enter_async_context(transport(fast_path))
            tasks.create_task(serve_streams(node, tasks, fast_path))
            places += [node.me, node.addresses.direct[0]]
        endpoint = await bare_endpoint()
        tasks.create_task(serve_bare_iroh(endpoint, tasks))
        places += [endpoint.id().to_bytes().hex(), endpoint.addr().direct_addresses()[0]]
        identity = TlsIdentity(os.urandom(32))
        context = identity.server_context([identity.certificate])
        context.verify_mode = ssl.CERT_NONE
        server = await asyncio.start_server(
            lambda r, w: answer(BareTlsChannel(r, w)), "127.0.0.1", 0, ssl=context, limit=FRAME_BYTES
        )
        places.append(str(server.sockets[0].getsockname()[1]))
        print(*places, flush=True)
        await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
        os._exit(0)


async def serve_streams(node: Any, tasks: asyncio.TaskGroup, fast_path: bool) -> None:
    async def serve_connection(connection: Connection) -> None:
        connection.trust()
        if fast_path:
            await introduce(connection, await connection.accept())
        while True:
            tasks.create_task(answer_stream(await connection.accept()))

    while True:
        tasks.create_task(serve_connection(await node.accept()))


async def answer_stream(stream: Stream) -> None:
    with suppress(Unreachable):
        await answer(StreamChannel(stream))
        await stream.finish()
        await stream.receive()
    await stream.close()


async def introduce(connection: Connection, stream: Stream) -> None:
    """Exchange offers, as members do."""
    offer = connection.fast_path
    assert offer is not None
    await stream.send(offer.certificate)
    await stream.send(" ".join(offer.addresses).encode())
    certificate, addresses = await stream.receive(), await stream.receive()
    assert certificate
    assert addresses
    connection.use_fast_path(FastPath(tuple(addresses.decode().split()), certificate))
    await stream.finish()
    await stream.receive()
    await stream.close()


async def serve_bare_iroh(endpoint: iroh.Endpoint, tasks: asyncio.TaskGroup) -> None:
    async def serve_connection(connection: iroh.Connection) -> None:
        with suppress(iroh.IrohError):
            while True:
                tasks.create_task(answer_bare_iroh(await connection.accept_bi()))

    while (incoming := await endpoint.accept_next()) is not None:
        tasks.create_task(serve_connection(await (await incoming.accept()).connect()))


async def answer_bare_iroh(stream: iroh.BiStream) -> None:
    with suppress(iroh.IrohError):
        channel = BareIrohChannel(stream)
        await answer(channel)
        await stream.send().finish()
        await channel.read()


Opening = Callable[[], Any]


@asynccontextmanager
async def candidates(places: list[str]) -> AsyncGenerator[dict[str, Opening]]:
    async with AsyncExitStack() as stack:
        slow = await connected(stack, places[0:2], fast_path=False)
        fast = await connected(stack, places[2:4], fast_path=True)
        async with fast.stream(Kind.HELLO) as stream:
            await introduce(fast, stream)
        endpoint = await bare_endpoint()
        identity = iroh.EndpointId.from_bytes(bytes.fromhex(places[4]))
        bare = await endpoint.connect(iroh.EndpointAddr(identity, None, [places[5]]), BARE_ALPN)
        yield {
            "bare iroh": lambda: open_bare_iroh(bare),
            "stream over iroh": lambda: open_stream(slow),
            "plain TLS": lambda: open_bare_tls(int(places[6])),
            "stream over the fast path": lambda: open_stream(fast),
        }
        bare.close(0, b"")
        await endpoint.close()


async def connected(stack: AsyncExitStack, place: list[str], fast_path: bool) -> Connection:
    node = await stack.enter_async_context(transport(fast_path))
    connection = await node.connect(NodeId(place[0]), Addresses(direct=(place[1],)))
    connection.trust()
    return connection


@asynccontextmanager
async def open_stream(connection: Connection) -> AsyncGenerator[Channel]:
    async with connection.stream(Kind.TUNNEL) as stream:
        yield StreamChannel(stream)
        await stream.finish()
        await stream.receive()


@asynccontextmanager
async def open_bare_iroh(connection: iroh.Connection) -> AsyncGenerator[Channel]:
    stream = await connection.open_bi()
    yield BareIrohChannel(stream)
    await stream.send().finish()


@asynccontextmanager
async def open_bare_tls(port: int) -> AsyncGenerator[Channel]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context, limit=FRAME_BYTES)
    yield BareTlsChannel(reader, writer)
    writer.transport.abort()


async def measure(opening: Opening, work: Callable[[Channel], Awaitable[float]]) -> float:
    async with opening() as channel:
        return await work(channel)


async def main(rounds: int, megabytes: int, turns: int) -> None:
    child = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "bench.transport", "--serve", stdin=PIPE, stdout=PIPE
    )
    assert child.stdout is not None
    assert child.stdin is not None
    places = (await child.stdout.readline()).decode().split()
    speeds: dict[str, list[float]] = {}
    delays: dict[str, list[float]] = {}
    async with candidates(places) as openings:
        for _ in range(rounds):
            for name, opening in openings.items():
                speed = await measure(opening, lambda channel: bulk(channel, megabytes * 1024 * 1024))
                speeds.setdefault(name, []).append(speed)
                delay = await measure(opening, lambda channel: ping_pong(channel, turns))
                delays.setdefault(name, []).append(delay)
        child.stdin.close()
    await child.wait()
    table(
        {name: statistics.median(found) for name, found in speeds.items()},
        {name: statistics.median(found) for name, found in delays.items()},
    )


def table(speeds: dict[str, float], delays: dict[str, float]) -> None:
    below = {"stream over iroh": ("bare iroh", 0.8), "stream over the fast path": ("plain TLS", 0.7)}
    print("| | MB/s | of what lies below | goal | 64 B there and back, us |\n|---|---|---|---|---|")
    for name, speed in speeds.items():
        other, goal = below.get(name, (name, None))
        ratio = f"{speed / speeds[other]:.2f} x | >= {goal}" if goal else " | "
        print(f"| {name} | {speed:.0f} | {ratio} | {delays[name]:.0f} |")


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--serve", action="store_true")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--megabytes", type=int, default=256)
    parser.add_argument("--turns", type=int, default=1000)
    given = parser.parse_args()
    if given.serve:
        asyncio.run(serve())
    else:
        asyncio.run(main(given.rounds, given.megabytes, given.turns))
