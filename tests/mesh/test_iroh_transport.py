import asyncio
import gc
import os
import signal
import socket
import stat
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import iroh
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from iroh import iroh_ffi

from mesh_llm.core.errors import AddressInUse, RequestRefused
from mesh_llm.core.ids import NodeId
from mesh_llm.mesh.iroh_transport import ALPN, IrohTransport, over_relay
from mesh_llm.mesh.transport import (
    Addresses,
    Connection,
    Kind,
    NoRelays,
    OwnRelays,
    PublicRelays,
    Relays,
    Unreachable,
)
from mesh_llm.runtime.clock import Clock
from tests.mesh.transport_contract import CONTRACT, Sentence, echo, everything, name_of

ROOT = Path(__file__).parents[2]


def opened(bind_port: int = 0, relays: Relays = NoRelays()):  # noqa: B008
    return IrohTransport.open(os.urandom(32), bind_port=bind_port, relays=relays, clock=Clock())


class ChildNode:
    def __init__(self) -> None:
        key = Ed25519PrivateKey.generate()
        self.me = NodeId(key.public_key().public_bytes_raw().hex())
        self.addresses = Addresses()
        self._key = key.private_bytes_raw().hex()
        self._port = 0
        self._process: Process | None = None

    async def start(self) -> None:
        self._process = await asyncio.create_subprocess_exec(
            sys.executable,
            *("-m", "tests.mesh.far_node_child", self._key, str(self._port)),
            cwd=ROOT,
            stdin=PIPE,
            stdout=PIPE,
        )
        assert self._process.stdout is not None
        address = (await self._process.stdout.readline()).decode().strip()
        self._port = int(address.rpartition(":")[2])
        self.addresses = Addresses(direct=(address,))

    async def fall_silent(self) -> None:
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    async def restart(self) -> None:
        await self.kill()
        await self.start()

    async def kill(self) -> None:
        assert self._process is not None
        self._process.kill()
        await self._process.communicate()


class IrohHarness:
    nobody = Addresses(direct=("127.0.0.1:9",))
    notice_seconds_max = 6.0  # 5 by design; the machine may be busy

    def transport(self):
        return opened()

    @asynccontextmanager
    async def far_node(self) -> AsyncGenerator[ChildNode]:
        node = ChildNode()
        await node.start()
        try:
            yield node
        finally:
            await node.kill()

    def introduce(self, near: Connection, far: Connection) -> None:
        pass


@pytest.mark.parametrize("sentence", CONTRACT, ids=name_of)
async def test_over_iroh(sentence: Sentence):
    await sentence(IrohHarness())


async def test_a_port_in_use_is_told_with_the_flag_that_helps():
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as taken:
        taken.bind(("0.0.0.0", 0))
        with pytest.raises(AddressInUse, match="--bind-port"):
            async with opened(bind_port=taken.getsockname()[1]):
                pass


async def test_the_port_asked_for_is_the_port_in_the_addresses():
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.bind(("0.0.0.0", 0))
        port = probe.getsockname()[1]
    async with opened(bind_port=port) as transport:
        assert {address.rpartition(":")[2] for address in transport.addresses.direct} == {str(port)}


@pytest.mark.parametrize("relays", [PublicRelays(), OwnRelays(("https://relay.invalid",)), NoRelays()])
async def test_starting_waits_for_no_relay(relays: Relays):
    async with asyncio.timeout(5), opened(relays=relays) as transport:
        assert transport.addresses.direct


async def test_a_relay_that_is_no_url_is_refused():
    with pytest.raises(RequestRefused, match=r"https://relay\.example\.org"):
        async with opened(relays=OwnRelays(("nonsense",))):
            pass


async def test_another_iroh_than_the_one_that_is_mended_is_told_at_the_start(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delattr(iroh_ffi, "_UniffiRustBufferBuilder")
    with pytest.raises(RequestRefused, match=r"iroh==1\.2\.0"):
        async with opened():
            pass


async def test_copying_that_is_still_slow_is_told_at_the_start(monkeypatch: pytest.MonkeyPatch):
    class Hours:
        def __init__(self) -> None:
            self.now = 0.0

        def monotonic(self) -> float:
            self.now += 3600
            return self.now

        def epoch(self) -> float:
            return self.now

    with pytest.raises(RequestRefused, match=r"iroh==1\.2\.0"):
        async with IrohTransport.open(os.urandom(32), relays=NoRelays(), clock=Hours()):
            pass


async def test_a_node_id_that_is_no_key_is_unreachable():
    async with opened() as transport:
        for nonsense in ("00", "no hexadecimal digits"):
            with pytest.raises(Unreachable):
                await transport.connect(NodeId(nonsense), Addresses(direct=("127.0.0.1:9",)))


async def test_addresses_that_are_none_are_unreachable():
    async with opened() as transport, opened() as other:
        with pytest.raises(Unreachable):
            await transport.connect(other.me, Addresses(direct=("nonsense",), relay="more nonsense"))


async def test_callers_of_another_protocol_do_not_stop_the_next_one():
    async with asyncio.timeout(30), opened() as transport:
        endpoint = await iroh.Endpoint.bind(
            iroh.EndpointOptions(preset=iroh.preset_minimal(), relay_mode=iroh.RelayMode.disabled())
        )
        address = iroh.EndpointAddr(
            iroh.EndpointId.from_bytes(bytes.fromhex(transport.me)), None, list(transport.addresses.direct)
        )
        for _ in range(3):
            with pytest.raises(iroh.IrohError):
                await endpoint.connect(address, b"something else")
        caller = await endpoint.connect(address, ALPN)
        near = await transport.accept()
        assert near.peer == endpoint.id().to_bytes().hex()
        caller.close(0, b"")
        await endpoint.close()


def path(*, is_relay: bool, is_selected: bool) -> iroh.PathSnapshot:
    counts = dict.fromkeys(
        (
            *("rtt_ms", "udp_tx_datagrams", "udp_tx_bytes", "udp_rx_datagrams", "udp_rx_bytes"),
            *("cwnd", "congestion_events", "lost_packets", "lost_bytes", "current_mtu"),
        ),
        0,
    )
    return iroh.PathSnapshot(
        id="1",
        is_selected=is_selected,
        remote_addr="",
        is_ip=not is_relay,
        is_relay=is_relay,
        rtt_ms=0,
        stats=iroh.PathStatsRecord(**counts),
    )


def test_packets_go_over_a_relay_where_iroh_has_selected_it():
    spare = path(is_relay=True, is_selected=False)
    assert not over_relay([])
    assert not over_relay([spare, path(is_relay=False, is_selected=True)])
    assert over_relay([path(is_relay=False, is_selected=False), path(is_relay=True, is_selected=True)])


def is_socket(name: str) -> bool:
    try:
        return stat.S_ISSOCK(os.fstat(int(name)).st_mode)
    except OSError:  # it was the listing's own
        return False


async def leaves_nothing_open(live: Callable[[], Awaitable[None]], *, times: int) -> None:
    """No task, and no socket. Files of other kinds iroh opens once in a process, and keeps."""

    def open_sockets() -> int:
        return sum(map(is_socket, os.listdir("/dev/fd")))

    sockets = open_sockets()
    for _ in range(times):
        await live()
    assert asyncio.all_tasks() == {asyncio.current_task()}
    gc.collect()
    async with asyncio.timeout(10):
        while open_sockets() > sockets:  # noqa: ASYNC110 (iroh closes them in a thread of its own)
            await asyncio.sleep(0.05)


async def test_two_transports_leave_nothing_behind():
    async def live() -> None:
        async with opened() as here, opened() as there, asyncio.TaskGroup() as tasks:
            near = await here.connect(there.me, there.addresses)
            far = await there.accept()
            for _ in range(20):
                async with near.stream(Kind.TUNNEL) as stream:
                    tasks.create_task(echo(await far.accept()))
                    await stream.send(b"x" * 1000)
                    await stream.finish()
                    assert await everything(stream) == b"x" * 1000

    await leaves_nothing_open(live, times=3)
    assert not vars(iroh_ffi)["_UniffiContinuationHandleMap"]._map
