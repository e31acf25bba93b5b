"""The door to iroh: the only module that knows it. `memory_transport.py` is its twin for tests.

iroh 1.2.0 needs five cures, and they are all here or called from here: its Python half copies byte by byte
(`iroh_copying.py` mends and tests it at every start); it locks itself up where the garbage collector frees
its objects (`iroh_freeing.py`); it takes 30 s to miss a dead peer (the guard of `connection.py`); a dropped
stream looks like a finished one (the end marks of `frames.py`); its callbacks leak threads and may abort the
process (none are used). Its exceptions end here, as Unreachable.
docs/decisions/0005 has the rest.
"""

import asyncio
import os
from collections import deque
from collections.abc import AsyncGenerator, Generator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager, suppress
from functools import cache

import iroh
from iroh import iroh_ffi

from mesh_llm.core.errors import AddressInUse, RequestRefused
from mesh_llm.core.ids import NodeId, short
from mesh_llm.mesh import iroh_words
from mesh_llm.mesh.iroh_copying import mend_copying
from mesh_llm.mesh.iroh_freeing import LateFreeing
from mesh_llm.mesh.network.connections import Connections
from mesh_llm.mesh.network.frames import HEAD
from mesh_llm.mesh.network.ports import free_udp_port, has_ipv6, not_opened
from mesh_llm.mesh.network.socket_addresses import host_and_port
from mesh_llm.mesh.network.tls_path import TlsPath
from mesh_llm.mesh.transport import (
    CONNECT_SECONDS_MAX,
    Addresses,
    Connection,
    NoRelays,
    NotWanted,
    OwnRelays,
    PublicRelays,
    Relays,
    Unreachable,
)
from mesh_llm.runtime.clock import Clock
from mesh_llm.runtime.tasks import unwrapped

ALPN = b"mesh-llm/1"

HANDSHAKES_MAX = 64
"""Under way at once. More are refused: their senders try again."""

HANDSHAKE_SECONDS_MAX = 10.0

WRITE_BYTES = 256 * 1024 + HEAD.size
"""Handed to iroh at once: the event loop stands still for it, some 0.5 ms. A usual bulk frame fits."""

BULK_BYTES = 64 * 1024
"""After a piece of this size the next read begins before anybody asks: a tenth faster, a piece more held."""

GOODBYE_SECONDS_MAX = 1.0
"""For what was finished to arrive before a connection is closed: iroh would throw it away."""

FINISHED_KEPT = 64
"""Streams finished last, whose arrival a goodbye waits for. Older ones have arrived or never will."""

REASON_BYTES_MAX = 1000
"""Of a goodbye: it travels in one packet."""

CLOSE_CODE = 1

Failures = (iroh.IrohError, iroh_ffi.InternalError)


class IrohPipe:
    """`streams.Pipe` over a bidirectional stream.

    A read runs in a task of its own, which outlives who waits for it: iroh throws bytes away where a read is
    cancelled in the moment when they come.
    """

    def __init__(
        self, stream: iroh.BiStream, finished: "deque[iroh.SendStream]", tasks: asyncio.TaskGroup
    ) -> None:
        self._sending = stream.send()
        self._receiving = stream.recv()
        self._finished = finished
        self._is_finished = False
        self._tasks = tasks
        self._reading: asyncio.Task[bytes | Unreachable] | None = None

    async def read(self, size: int) -> bytes:
        if self._reading is None:
            self._reading = self._tasks.create_task(self._read(size))
        piece = await asyncio.shield(self._reading)
        self._reading = None
        if isinstance(piece, Unreachable):
            raise piece
        if len(piece) >= BULK_BYTES:
            self._reading = self._tasks.create_task(self._read(size))
        return piece

    async def write(self, data: bytes) -> None:
        with _unreachable():
            for start in range(0, len(data), WRITE_BYTES):
                await self._sending.write_all(data[start : start + WRITE_BYTES])

    async def finish(self) -> None:
        with _unreachable():
            await self._sending.finish()
        self._is_finished = True
        self._finished.append(self._sending)

    async def abort(self) -> None:
        await self.done(b"")  # nothing can be stopped while something reads
        with suppress(*Failures):
            if not self._is_finished:
                await self._sending.reset(CLOSE_CODE)
        with suppress(*Failures):
            await self._receiving.stop(CLOSE_CODE)

    async def done(self, rest: bytes) -> None:
        """iroh forgets a stream whose halves have both ended."""
        if self._reading is not None:
            self._reading.cancel()

    async def _read(self, size: int) -> bytes | Unreachable:
        try:
            return await self._receiving.read(size)
        except Failures as error:
            return Unreachable(_said(error))


class IrohCarrier:
    """`carrier.Carrier` over a connection."""

    def __init__(self, connection: iroh.Connection, tasks: asyncio.TaskGroup) -> None:
        self.peer = NodeId(connection.remote_id().to_bytes().hex())
        self._connection = connection
        self._tasks = tasks
        self._finished: deque[iroh.SendStream] = deque(maxlen=FINISHED_KEPT)
        self._accepting: asyncio.Task[iroh.BiStream | Unreachable] | None = None
        connection.set_max_concurrent_uni_streams(0)

    @property
    def packets_received(self) -> int:
        return self._connection.stats().udp_rx_datagrams

    @property
    def is_relayed(self) -> bool:
        return over_relay(self._connection.paths())

    async def open_pipe(self) -> IrohPipe:
        with _unreachable():
            return IrohPipe(await self._connection.open_bi(), self._finished, self._tasks)

    async def accept_pipe(self) -> IrohPipe:
        """In a task of its own, which ends with the connection: iroh leaks it where this is cancelled."""
        if self._accepting is None:
            self._accepting = self._tasks.create_task(self._accept())
        stream = await asyncio.shield(self._accepting)
        self._accepting = None
        if isinstance(stream, Unreachable):
            raise stream
        return IrohPipe(stream, self._finished, self._tasks)

    def allow_pipes(self, count: int) -> None:
        self._connection.set_max_concurrent_bi_streams(count)

    def send_datagram(self, data: bytes) -> None:
        with suppress(*Failures):  # no room, or the connection has ended: datagrams may get lost
            self._connection.send_datagram(data)

    async def receive_datagram(self) -> bytes:
        with _unreachable():
            return await self._connection.read_datagram()

    async def wait_ended(self) -> str:
        return iroh_words.why_closed(await self._connection.closed())

    async def close(self, reason: str) -> None:
        if self._connection.close_reason() is None:
            with suppress(TimeoutError, *Failures):
                async with asyncio.timeout(GOODBYE_SECONDS_MAX):
                    for sending in tuple(self._finished):
                        await sending.stopped()
            self._connection.close(CLOSE_CODE, reason.encode(errors="replace")[:REASON_BYTES_MAX])
        self._finished.clear()

    async def _accept(self) -> iroh.BiStream | Unreachable:
        try:
            return await self._connection.accept_bi()
        except Failures as error:
            return Unreachable(_said(error))


class IrohTransport:
    """`mesh.transport.Transport`. Made by `open`."""

    def __init__(self, endpoint: iroh.Endpoint, fast: TlsPath | None, tasks: asyncio.TaskGroup) -> None:
        self.me = NodeId(endpoint.id().to_bytes().hex())
        self.port = int(_ports(endpoint)[0])
        """UDP."""
        self._endpoint = endpoint
        self._tasks = tasks
        self._connections = Connections(tasks, fast)
        self.traffic = self._connections.traffic
        self._handshakes = 0
        tasks.create_task(self._take_connections(), name="iroh accepts")

    @classmethod
    @asynccontextmanager
    async def open(
        cls,
        secret_key: bytes,
        *,
        bind_port: int = 0,
        last_port: int = 0,
        relays: Relays,
        clock: Clock,
        fast_path: bool = True,
    ) -> AsyncGenerator["IrohTransport"]:
        """`secret_key`: the 32 bytes of the node's Ed25519 key. `bind_port`: UDP and, for the fast path, TCP;
        0 for any: then rather `last_port`, where others knew this node, if that is free.

        Waits for no relay and no internet. Raises AddressInUse, RequestRefused.
        """
        _quieten()
        mend_copying(vars(iroh_ffi), clock)
        late_freeing().use_this_loop()
        endpoint = await _bound_to(bind_port, last_port, secret_key, _relay_mode(relays))
        try:
            with unwrapped():
                async with asyncio.TaskGroup() as tasks, AsyncExitStack() as stack:
                    fast = None
                    if fast_path:
                        opening = TlsPath.open(secret_key, bind_port, lambda: _direct(endpoint), tasks)
                        fast = await stack.enter_async_context(opening)
                    transport = cls(endpoint, fast, tasks)
                    try:
                        yield transport
                    finally:
                        await transport.close()
        finally:
            await _close(endpoint)

    @property
    def addresses(self) -> Addresses:
        return Addresses(direct=_direct(self._endpoint), relay=self._endpoint.addr().relay_url())

    async def connect(self, peer: NodeId, addresses: Addresses) -> Connection:
        try:
            async with asyncio.timeout(CONNECT_SECONDS_MAX):
                with _unreachable():
                    return await self._connected(peer, addresses)
        except TimeoutError:
            raise Unreachable(f"{short(peer)} did not answer within {CONNECT_SECONDS_MAX:.0f} s") from None

    async def accept(self) -> Connection:
        return await self._connections.accept()

    async def close(self) -> None:
        await self._connections.close("the node has left")
        await _close(self._endpoint)

    async def _connected(self, peer: NodeId, addresses: Addresses) -> Connection:
        try:
            identity = iroh.EndpointId.from_bytes(bytes.fromhex(peer))
        except ValueError:
            raise Unreachable(f"{short(peer)} is no node id: those are 64 hexadecimal digits") from None
        connection = await self._endpoint.connect(_readable(identity, addresses), ALPN)
        return self._connections.adopt(IrohCarrier(connection, self._tasks))

    async def _take_connections(self) -> None:
        async with asyncio.TaskGroup() as tasks:
            while (incoming := await self._endpoint.accept_next()) is not None:
                if self._handshakes < HANDSHAKES_MAX:
                    self._handshakes += 1
                    tasks.create_task(self._shake_hands(incoming), name="iroh handshake")
                else:
                    with suppress(*Failures):
                        await incoming.refuse()

    async def _shake_hands(self, incoming: iroh.Incoming) -> None:
        try:
            with suppress(TimeoutError, *Failures):
                async with asyncio.timeout(HANDSHAKE_SECONDS_MAX):
                    connection = await (await incoming.accept()).connect()
                self._connections.arrived(IrohCarrier(connection, self._tasks))
        finally:
            self._handshakes -= 1


def over_relay(paths: Sequence[iroh.PathSnapshot]) -> bool:
    """iroh keeps others beside the one it has selected, which carries the packets."""
    return any(path.is_selected and path.is_relay for path in paths)


def _readable(peer: iroh.EndpointId, addresses: Addresses) -> iroh.EndpointAddr:
    """Without what iroh cannot read, for which it would refuse the whole dial."""
    relay = addresses.relay
    try:
        if relay is not None:
            iroh.RelayMode.custom_from_urls([relay])
    except iroh.IrohError:
        relay = None
    return iroh.EndpointAddr(peer, relay, [each for each in addresses.direct if host_and_port(each)])


def _direct(endpoint: iroh.Endpoint) -> tuple[str, ...]:
    """Of a machine without a network its own processes still reach the loopback."""
    found = tuple(endpoint.addr().direct_addresses())
    return found or tuple(f"127.0.0.1:{port}" for port in _ports(endpoint))


def _ports(endpoint: iroh.Endpoint) -> list[str]:
    """Over IPv4."""
    return [bound.rpartition(":")[2] for bound in endpoint.bound_sockets() if "[" not in bound]


async def _close(endpoint: iroh.Endpoint) -> None:
    with suppress(TimeoutError):  # iroh waits 3 s for those who do not answer
        async with asyncio.timeout(GOODBYE_SECONDS_MAX):
            await endpoint.close()


class _Binding(iroh.Preset):
    """How an endpoint begins: nothing is published anywhere, one socket for each family of addresses."""

    def __init__(self, sockets: list[str], relay_mode: iroh.RelayMode) -> None:
        self._sockets = sockets
        self._relay_mode = relay_mode

    def apply(self, builder: iroh.EndpointBuilder) -> None:
        builder.apply_minimal()
        builder.relay_mode(self._relay_mode)
        for address in self._sockets:
            builder.bind_addr(address)


async def _bound_to(port: int, last: int, secret_key: bytes, relay_mode: iroh.RelayMode) -> iroh.Endpoint:
    if port == 0:
        with suppress(AddressInUse, RequestRefused):  # then any, maybe another for each family of addresses
            return await _bound(secret_key, last or free_udp_port(), relay_mode)
    return await _bound(secret_key, port, relay_mode)


async def _bound(secret_key: bytes, port: int, relay_mode: iroh.RelayMode) -> iroh.Endpoint:
    sockets = [f"0.0.0.0:{port}"] + ([f"[::]:{port}"] if has_ipv6() else [])
    options = iroh.EndpointOptions(preset=_Binding(sockets, relay_mode), secret_key=secret_key, alpns=[ALPN])
    try:
        return await iroh.Endpoint.bind(options)
    except iroh.IrohError as error:
        said = _said(error)
        raise not_opened("UDP", port, iroh_words.os_error(said), said) from None


def _relay_mode(relays: Relays) -> iroh.RelayMode:
    match relays:
        case PublicRelays():
            return iroh.RelayMode.default_mode()
        case NoRelays():
            return iroh.RelayMode.disabled()
        case OwnRelays(urls):
            try:
                return iroh.RelayMode.custom_from_urls(list(urls))
            except iroh.IrohError:
                raise RequestRefused(
                    f"{', '.join(urls)}: no such relay can be; give a URL like https://relay.example.org"
                ) from None


@contextmanager
def _unreachable() -> Generator[None]:
    try:
        yield
    except Failures as error:
        said = _said(error)
        raise (NotWanted if iroh_words.peer_stopped_reading(said) else Unreachable)(said) from None


def _said(error: Exception) -> str:
    return iroh_words.plain(error.message() if isinstance(error, iroh.IrohError) else str(error))


@cache
def _quieten() -> None:
    """Once in a process: iroh's own log may not be set twice."""
    os.environ["RUST_BACKTRACE"] = "0"  # messages are for people
    iroh.set_log_level(iroh.LogLevel.OFF)


@cache
def late_freeing() -> LateFreeing:
    """One for the whole process: what is mended twice hands its objects on to a loop that may have ended."""
    freeing = LateFreeing()
    freeing.mend(vars(iroh_ffi))
    return freeing
