import asyncio
import os
import socket
import ssl
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import replace
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesh_llm.mesh.iroh_transport import IrohTransport
from mesh_llm.mesh.network.tls_identity import CERTIFICATE_BYTES_MAX, TlsIdentity, node_of
from mesh_llm.mesh.transport import Connection, FastPath, Kind, NoRelays, PeerError
from mesh_llm.runtime.clock import Clock
from tests.mesh.tcp_relay import TcpRelay
from tests.mesh.test_iroh_transport import IrohHarness, leaves_nothing_open, opened
from tests.mesh.transport_contract import (
    CONTRACT,
    Sentence,
    echo,
    everything,
    members,
    name_of,
    strangers,
    until_unreachable,
)


def offer_of(connection: Connection) -> FastPath:
    offer = connection.fast_path
    assert offer is not None
    return offer


def pipes_of(connection: Any) -> list[Any]:
    return [*connection._links._here, *connection._links._there]


class FastHarness(IrohHarness):
    def introduce(self, near: Connection, far: Connection) -> None:
        near.use_fast_path(offer_of(far))
        far.use_fast_path(offer_of(near))


@pytest.mark.parametrize("sentence", CONTRACT, ids=name_of)
async def test_with_the_fast_path(sentence: Sentence):
    await sentence(FastHarness())


def packets_over_iroh(connection: Any) -> int:
    return connection._carrier.packets_received


def idle_links(connection: Any) -> list[Any]:
    return [link for link in connection._links._idle if link.is_usable]


async def bulk_over_iroh(near: Connection, far: Connection) -> bool:
    """Send 4 MB; whether they went over iroh: that takes some 3,000 packets."""
    before = packets_over_iroh(far)
    async with near.stream(Kind.TUNNEL) as sending, asyncio.TaskGroup() as tasks:
        receiving = await far.accept()
        tasks.create_task(everything(receiving))
        for _ in range(64):
            await sending.send(b"x" * 65536)
        await sending.finish()
        await receiving.finish()
        assert await sending.receive() is None
    await receiving.close()
    return packets_over_iroh(far) - before > 1000


async def until_bulk_is_fast(near: Connection, far: Connection) -> None:
    """Where a machine is so busy that a round trip takes 10 ms, streams go over iroh at first."""
    async with asyncio.timeout(60):
        while await bulk_over_iroh(near, far):
            pass


async def test_bulk_takes_the_fast_path_and_goes_over_iroh_without_one():
    async with members(FastHarness()) as (near, far):
        await until_bulk_is_fast(near, far)
        await until_bulk_is_fast(far, near)
    async with members(IrohHarness()) as (near, far):
        assert await bulk_over_iroh(near, far)


@asynccontextmanager
async def relayed() -> AsyncGenerator[tuple[Connection, Connection, TcpRelay]]:
    """Members whose fast path leads through a relay that can stop."""
    async with strangers(IrohHarness()) as (near, far):
        near.trust()
        far.trust()
        offer = offer_of(far)
        port = int(offer.addresses[0].rpartition(":")[2])
        async with TcpRelay("127.0.0.1", port).running() as relay:
            far.use_fast_path(offer_of(near))
            near.use_fast_path(replace(offer, addresses=(f"127.0.0.1:{relay.port}",)))
            yield near, far, relay


async def test_a_fast_path_that_stops_costs_what_it_carried_and_nothing_that_comes():
    async with relayed() as (near, far, relay):
        async with near.stream(Kind.TUNNEL) as stream:
            receiving = await far.accept()
            relay.stop()
            await until_unreachable(stream.receive)
            await receiving.close()
        for _ in range(3):
            assert await bulk_over_iroh(near, far)


async def test_a_link_that_broke_while_nobody_used_it_is_not_used():
    async with relayed() as (near, far, relay):
        await until_bulk_is_fast(near, far)
        relay.stop()
        while idle_links(near):  # noqa: ASYNC110 (the end travels through the kernel)
            await asyncio.sleep(0.01)
        assert await bulk_over_iroh(near, far)


async def test_a_fast_path_that_comes_back_is_taken_again():
    async with relayed() as (near, far, relay):
        relay.stop()
        assert await bulk_over_iroh(near, far)
        await relay.start()
        while await bulk_over_iroh(near, far):  # noqa: ASYNC110 (it is tried again after a second)
            await asyncio.sleep(0.2)


async def test_streams_one_after_the_other_share_a_link():
    async with relayed() as (near, far, relay):
        for _ in range(5):
            await bulk_over_iroh(near, far)
        assert relay.carried <= 2  # the next may begin before the peer says that the last is over


async def test_small_frames_are_not_held_back_on_either_side():
    async with members(FastHarness()) as (near, far), near.stream(Kind.TUNNEL) as sending:
        receiving = await far.accept()
        links = [pipe.link for side in (near, far) for pipe in pipes_of(side)]
        assert len(links) == 2
        for link in links:
            connected = link._writer.get_extra_info("socket")
            assert connected.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
        await sending.finish()
        await receiving.close()


async def test_a_link_whose_stream_the_peer_let_go_of_early_loses_no_later_stream():
    async with members(FastHarness()) as (near, far):
        for _ in range(20):
            async with near.stream(Kind.TUNNEL) as sending:
                receiving = await far.accept()
                await receiving.send(b"enough")
                await receiving.finish()
                await receiving.close()
                await sending.finish()
                assert await everything(sending) == b"enough"


async def test_leaving_does_not_wait_for_a_peer_that_keeps_its_stream():
    async with asyncio.timeout(30), opened() as there, AsyncExitStack() as stack:
        here = await stack.enter_async_context(opened())
        near = await here.connect(there.me, there.addresses)
        far = await there.accept()
        FastHarness().introduce(near, far)
        async with near.stream(Kind.TUNNEL) as sending:
            receiving = await far.accept()
            await receiving.finish()
            await sending.finish()
            assert await sending.receive() is None
        async with asyncio.timeout(4):
            await stack.aclose()
        await receiving.close()


async def test_streams_at_once_have_links_of_their_own():
    async with relayed() as (near, far, relay), asyncio.TaskGroup() as tasks:
        for _ in range(5):
            tasks.create_task(bulk_over_iroh(near, far))
    assert relay.carried == 5


async def test_an_address_where_nobody_answers_costs_a_moment_and_no_stream():
    async with strangers(IrohHarness()) as (near, far):
        near.use_fast_path(replace(offer_of(far), addresses=("127.0.0.1:9", "192.0.2.77:9")))
        assert await bulk_over_iroh(near, far)


async def test_a_peer_that_does_not_know_our_certificate_yet_is_tried_again():
    async with strangers(IrohHarness()) as (near, far):
        near.use_fast_path(offer_of(far))
        assert await bulk_over_iroh(near, far)
        far.use_fast_path(offer_of(near))
        while await bulk_over_iroh(near, far):  # noqa: ASYNC110 (it is tried again after a second)
            await asyncio.sleep(0.2)


async def test_an_offer_with_the_certificate_of_another_is_refused():
    async with strangers(IrohHarness()) as (near, far):
        stranger = TlsIdentity(os.urandom(32))
        with pytest.raises(PeerError, match="another node's"):
            near.use_fast_path(replace(offer_of(far), certificate=stranger.certificate))


@pytest.mark.parametrize(
    "addresses", [("example.org:80",), ("127.0.0.1",), ("127.0.0.1:0",), ("127.0.0.1:9",) * 17]
)
async def test_an_offer_with_addresses_that_are_none_is_refused(addresses: tuple[str, ...]):
    async with strangers(IrohHarness()) as (near, far):
        with pytest.raises(PeerError, match="fast path with"):
            near.use_fast_path(replace(offer_of(far), addresses=addresses))


async def first_byte(identity: TlsIdentity | None, offer: FastPath) -> bytes:
    """What a caller hears who shows this certificate, or none."""
    if identity is None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    else:
        context = identity.client_context(offer.certificate)
    host, _, port = offer.addresses[-1].rpartition(":")
    with suppress(OSError):
        reader, writer = await asyncio.open_connection(host, int(port), ssl=context, server_hostname="")
        try:
            return await reader.read(1)
        finally:
            writer.transport.abort()
    return b""


@pytest.mark.parametrize("identity", [None, TlsIdentity(os.urandom(32))], ids=["none", "a stranger's"])
async def test_who_shows_no_members_certificate_hears_nothing(identity: TlsIdentity | None):
    async with members(FastHarness()) as (_, far), asyncio.timeout(10):
        assert await first_byte(identity, offer_of(far)) == b""


async def test_a_member_is_let_in_until_its_connection_ends():
    async with asyncio.timeout(30), opened() as there, opened() as here:
        near = await here.connect(there.me, there.addresses)
        far = await there.accept()
        offer = offer_of(far)
        mine = cast("Any", here)._connections._fast.identity
        assert node_of(mine.certificate) == here.me
        assert await first_byte(mine, offer) == b""
        far.use_fast_path(offer_of(near))
        assert await first_byte(mine, offer) == b"\x01"
        far.close("expelled")
        await near.wait_closed()
        while await first_byte(mine, offer):  # noqa: ASYNC110 (iroh's goodbye comes first)
            await asyncio.sleep(0.05)


async def test_links_end_with_their_connection_and_leave_nothing_behind():
    async def live() -> None:
        async with members(FastHarness()) as (near, far), asyncio.TaskGroup() as tasks:
            for _ in range(10):
                tasks.create_task(ask(near))
                tasks.create_task(echo(await far.accept()))

    async def ask(near: Connection) -> None:
        async with near.stream(Kind.TUNNEL) as stream:
            await stream.send(b"x" * 1000)
            await stream.finish()
            assert await everything(stream) == b"x" * 1000

    await leaves_nothing_open(live, times=2)


async def test_without_a_listener_there_is_no_offer_and_no_use_of_one():
    slow = IrohTransport.open(os.urandom(32), relays=NoRelays(), clock=Clock(), fast_path=False)
    async with asyncio.timeout(30), opened() as there, slow as here:
        near = await here.connect(there.me, there.addresses)
        far = await there.accept()
        assert near.fast_path is None
        near.use_fast_path(offer_of(far))
        assert await bulk_over_iroh(near, far)


def test_a_certificate_carries_the_nodes_own_key_and_is_the_same_each_time():
    key = os.urandom(32)
    assert TlsIdentity(key).certificate == TlsIdentity(key).certificate
    assert node_of(TlsIdentity(key).certificate) != node_of(TlsIdentity(os.urandom(32)).certificate)


@given(st.binary(max_size=600), st.integers(0, 280))
def test_a_certificate_that_is_none_raises_nothing_but_peer_error(noise: bytes, at: int):
    good = TlsIdentity(b"k" * 32).certificate
    for certificate in (
        noise,
        good[:at] + noise[:3] + good[at + len(noise[:3]) :],
        b"x" * CERTIFICATE_BYTES_MAX * 2,
    ):
        with suppress(PeerError):
            node_of(certificate)
