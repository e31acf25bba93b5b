"""What every transport promises, a sentence each; run over memory and over iroh by the tests beside it."""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from random import Random
from typing import Any, Protocol

import pytest

from mesh_llm.core.ids import NodeId
from mesh_llm.mesh.network.frames import DATA, END_FRAME, HEAD, data_frame
from mesh_llm.mesh.transport import (
    DATAGRAM_BYTES_MAX,
    FRAME_BYTES_MAX,
    Addresses,
    Connection,
    Kind,
    NotWanted,
    PeerError,
    Refused,
    Stream,
    Transport,
    Unreachable,
)

PATIENCE_S = 30.0


class FarNode(Protocol):
    """A node that trusts everybody and echoes every stream, in a process of its own where there are any."""

    me: NodeId

    @property
    def addresses(self) -> Addresses: ...

    async def fall_silent(self) -> None:
        """It neither answers nor says goodbye."""
        ...

    async def restart(self) -> None:
        """It is killed and comes again as the same node."""
        ...


class Harness(Protocol):
    nobody: Addresses
    """Where nobody answers."""
    notice_seconds_max: float
    """Until a silent peer must have been noticed."""

    def transport(self) -> AbstractAsyncContextManager[Transport]: ...

    def far_node(self) -> AbstractAsyncContextManager[FarNode]: ...

    def introduce(self, near: Connection, far: Connection) -> None:
        """What members do once they know each other."""
        ...


Sentence = Callable[[Harness], Awaitable[None]]
CONTRACT: list[Sentence] = []


def promised(sentence: Sentence) -> Sentence:
    CONTRACT.append(sentence)
    return sentence


def name_of(sentence: Sentence) -> str:
    return sentence.__name__


async def echo(stream: Stream) -> None:
    """Send back what comes, then end."""
    with suppress(Unreachable, Refused, PeerError):
        try:
            while (frame := await stream.receive()) is not None:
                await stream.send(frame)
            await stream.finish()
        finally:
            await stream.close()


async def echo_everything(transport: Transport, tasks: asyncio.TaskGroup) -> None:
    async def serve(connection: Connection) -> None:
        connection.trust()
        with suppress(Unreachable):
            while True:
                tasks.create_task(echo(await connection.accept()))

    with suppress(Unreachable):
        while True:
            tasks.create_task(serve(await transport.accept()))


@asynccontextmanager
async def strangers(harness: Harness) -> AsyncGenerator[tuple[Connection, Connection]]:
    async with asyncio.timeout(PATIENCE_S), harness.transport() as here, harness.transport() as there:
        near = await here.connect(there.me, there.addresses)
        yield near, await there.accept()


@asynccontextmanager
async def members(harness: Harness) -> AsyncGenerator[tuple[Connection, Connection]]:
    async with strangers(harness) as (near, far):
        near.trust()
        far.trust()
        harness.introduce(near, far)
        yield near, far


@asynccontextmanager
async def a_stream(harness: Harness) -> AsyncGenerator[tuple[Stream, Stream]]:
    async with members(harness) as (near, far), near.stream(Kind.TUNNEL) as sending:
        receiving = await far.accept()
        try:
            yield sending, receiving
        finally:
            await receiving.close()


async def raw_pipe(connection: Any) -> Any:
    """For what no honest node sends."""
    fast = await connection._links.open_pipe(None) if connection._links else None
    return fast or await connection._carrier.open_pipe()


async def everything(stream: Stream) -> bytes:
    frames: list[bytes] = []
    while (frame := await stream.receive()) is not None:
        frames.append(frame)
    return b"".join(frames)


async def without_end(work: Callable[[], Awaitable[Any]]) -> None:
    while True:
        await work()


async def until_unreachable(work: Callable[[], Awaitable[Any]]) -> str:
    try:
        await without_end(work)
    except Unreachable as error:
        return str(error)
    raise AssertionError("work without end has ended")


async def reason_of_refusal(pipe: Any) -> str:
    """What is answered to a stream of our own making."""
    data = b""
    while piece := await pipe.read(65536):
        data += piece
        if len(data) > HEAD.size and len(data) == HEAD.size + HEAD.unpack_from(data)[1]:
            break
    await pipe.abort()
    return data[HEAD.size :].decode()


@promised
async def both_sides_know_who_the_other_is(harness: Harness) -> None:
    async with asyncio.timeout(PATIENCE_S), harness.transport() as here, harness.transport() as there:
        near = await here.connect(there.me, there.addresses)
        far = await there.accept()
        assert (near.peer, far.peer) == (there.me, here.me)


@promised
async def bytes_are_counted_on_both_sides_by_what_they_are_for(harness: Harness) -> None:
    async with asyncio.timeout(PATIENCE_S), harness.transport() as here, harness.transport() as there:
        near = await here.connect(there.me, there.addresses)
        far = await there.accept()
        near.trust()
        far.trust()
        async with near.stream(Kind.RING) as stream:
            await stream.send(b"1234")
            await stream.finish()
            receiving = await far.accept()
            assert await everything(receiving) == b"1234"
            await receiving.close()
        assert here.traffic.sent == {Kind.RING: 2 + 4} and not here.traffic.received
        assert there.traffic.received == {Kind.RING: 4} and not there.traffic.sent


@promised
async def bytes_arrive_whole_and_in_order_both_ways_at_once(harness: Harness) -> None:
    chance = Random(1)
    frames = [chance.randbytes(chance.choice((1, 2, 1000, 65536, 200_000))) for _ in range(40)]
    frames.append(chance.randbytes(FRAME_BYTES_MAX))
    async with a_stream(harness) as (near, far), asyncio.TaskGroup() as tasks:

        async def send(stream: Stream) -> None:
            for frame in frames:
                await stream.send(frame)
            await stream.finish()

        async def receive(stream: Stream) -> None:
            for frame in frames:
                assert await stream.receive() == frame
            assert await stream.receive() is None
            assert await stream.receive() is None

        for stream in (near, far):
            tasks.create_task(send(stream))
            tasks.create_task(receive(stream))


@promised
async def a_side_that_has_ended_still_hears_the_other(harness: Harness) -> None:
    async with a_stream(harness) as (near, far):
        assert near.kind is far.kind is Kind.TUNNEL
        await near.finish()
        assert await far.receive() is None
        await far.send(b"late")
        await far.finish()
        assert await everything(near) == b"late"


@promised
async def a_stream_that_is_left_unfinished_is_broken_off(harness: Harness) -> None:
    async with members(harness) as (near, far):
        async with near.stream(Kind.TUNNEL) as sending:
            receiving = await far.accept()
            await sending.send(b"half of it")
            assert await receiving.receive() == b"half of it"
        await until_unreachable(receiving.receive)
        await receiving.close()


@promised
async def an_end_of_bytes_without_an_end_mark_is_a_break(harness: Harness) -> None:
    async with members(harness) as (near, far):
        pipe = await raw_pipe(near)
        await pipe.write(data_frame(bytes((Kind.TUNNEL, 1))) + data_frame(b"all of it?"))
        receiving = await far.accept()
        assert await receiving.receive() == b"all of it?"
        await pipe.write(HEAD.pack(DATA, 100) + b"no")
        await pipe.finish()
        await pipe.abort()
        await until_unreachable(receiving.receive)
        await receiving.close()


@promised
async def a_full_window_makes_the_sender_wait(harness: Harness) -> None:
    frame, count = b"x" * 65536, 512
    async with a_stream(harness) as (near, far), asyncio.TaskGroup() as tasks:

        async def send() -> None:
            for _ in range(count):
                await near.send(frame)
            await near.finish()

        sending = tasks.create_task(send())
        await asyncio.wait([sending], timeout=1)
        assert not sending.done()
        assert len(await everything(far)) == count * len(frame)


@promised
async def closing_a_stream_wakes_who_waits_at_either_end(harness: Harness) -> None:
    async with a_stream(harness) as (near, far), asyncio.TaskGroup() as tasks:
        here = tasks.create_task(until_unreachable(near.receive))
        there = tasks.create_task(until_unreachable(far.receive))
        await asyncio.sleep(0)
        await near.close()
        await here
        await there


@promised
async def a_sender_sees_that_the_other_side_has_let_go(harness: Harness) -> None:
    async with a_stream(harness) as (near, far):
        await far.close()
        await until_unreachable(lambda: near.send(b"x" * 1000))


@promised
async def closing_a_connection_wakes_both_sides_and_tells_why(harness: Harness) -> None:
    async with members(harness) as (near, far), asyncio.TaskGroup() as tasks:
        async with near.stream(Kind.TUNNEL) as sending:
            receiving = await far.accept()
            waits = (sending.receive, receiving.receive, near.accept, far.accept)
            for wait in (*waits, near.receive_datagram, far.receive_datagram):
                tasks.create_task(until_unreachable(wait))
            await asyncio.sleep(0)
            near.close("you were expelled")
            assert await far.wait_closed() == "you were expelled"
            assert await near.wait_closed() == "you were expelled"
        with pytest.raises(Unreachable):
            async with far.stream(Kind.TUNNEL):
                pass


@promised
async def what_was_finished_before_a_goodbye_arrives(harness: Harness) -> None:
    async with members(harness) as (near, far):
        async with near.stream(Kind.NOTICE) as sending:
            await sending.send(b"x" * 100_000)
            await sending.finish()
        near.close("farewell")
        receiving = await far.accept()
        assert len(await everything(receiving)) == 100_000
        assert await far.wait_closed() == "farewell"
        await receiving.close()


@promised
async def leaving_tells_every_peer(harness: Harness) -> None:
    async with asyncio.timeout(PATIENCE_S), harness.transport() as here, harness.transport() as there:
        await here.connect(there.me, there.addresses)
        far = await there.accept()
        await here.close()
        assert await far.wait_closed() == "the node has left"
        with pytest.raises(Unreachable):
            await here.accept()


@promised
async def a_node_that_does_not_answer_is_unreachable(harness: Harness) -> None:
    async with asyncio.timeout(PATIENCE_S), harness.transport() as here, harness.transport() as there:
        stranger = NodeId(there.me)
        await there.close()
        with pytest.raises(Unreachable):
            await here.connect(stranger, harness.nobody)


@promised
async def a_node_without_an_address_is_unreachable(harness: Harness) -> None:
    async with asyncio.timeout(PATIENCE_S), harness.transport() as here, harness.transport() as there:
        with pytest.raises(Unreachable):
            await here.connect(there.me, Addresses())


@promised
async def an_address_that_is_none_does_not_spoil_the_others(harness: Harness) -> None:
    async with asyncio.timeout(PATIENCE_S), harness.transport() as here, harness.transport() as there:
        odd = ("nowhere", "192.0.2.1:99999", "[fe80::1%eth0]:5", "example.org:80")
        await here.connect(there.me, Addresses((*odd, *there.addresses.direct), relay="https://a b"))


@promised
async def another_node_at_the_address_is_not_taken_for_the_peer(harness: Harness) -> None:
    async with (
        asyncio.timeout(PATIENCE_S),
        harness.transport() as here,
        harness.transport() as there,
        harness.transport() as impostor,
    ):
        with pytest.raises(Unreachable):
            await here.connect(there.me, impostor.addresses)


@promised
async def a_frame_over_the_limit_is_refused_before_it_has_come(harness: Harness) -> None:
    async with members(harness) as (near, far):
        pipe = await raw_pipe(near)
        await pipe.write(data_frame(bytes((Kind.TUNNEL, 1))) + HEAD.pack(DATA, FRAME_BYTES_MAX + 1))
        receiving = await far.accept()
        with pytest.raises(PeerError):
            await receiving.receive()
        await receiving.close()
        await pipe.abort()


@promised
async def two_hundred_streams_beside_a_bulk_one_all_come_through(harness: Harness) -> None:
    async with harness.far_node() as far, asyncio.timeout(PATIENCE_S), harness.transport() as here:
        near = await here.connect(far.me, far.addresses)
        near.trust()

        async def ask(number: int) -> None:
            async with near.stream(Kind.TUNNEL) as stream:
                for turn in range(3):
                    await stream.send(b"%d %d" % (number, turn))
                    assert await stream.receive() == b"%d %d" % (number, turn)
                await stream.finish()
                assert await stream.receive() is None

        async def push() -> None:
            async with near.stream(Kind.TUNNEL) as stream, asyncio.TaskGroup() as pushing:
                returned = pushing.create_task(everything(stream))
                for _ in range(100):
                    await stream.send(b"x" * 65536)
                await stream.finish()
                assert len(await returned) == 100 * 65536

        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(push())
            for number in range(200):
                tasks.create_task(ask(number))


@promised
async def a_kind_that_is_not_spoken_is_refused_with_those_that_are(harness: Harness) -> None:
    async with members(harness) as (near, far):
        pipe = await raw_pipe(near)
        await pipe.write(data_frame(bytes((99, 1))) + END_FRAME)
        reason = await reason_of_refusal(pipe)
        assert "kind 99" in reason
        assert all(kind.name.lower() in reason for kind in Kind)
        async with near.stream(Kind.GOSSIP):
            stream = await far.accept()
            assert stream.kind is Kind.GOSSIP
            await stream.close()


@promised
async def a_version_that_is_not_spoken_is_refused_with_the_one_that_is(harness: Harness) -> None:
    async with members(harness) as (near, _):
        pipe = await raw_pipe(near)
        await pipe.write(data_frame(bytes((Kind.TUNNEL, 2))))
        assert await reason_of_refusal(pipe) == "tunnel streams are spoken here in version 1, not 2"


@promised
async def a_refusal_brings_its_reason(harness: Harness) -> None:
    async with a_stream(harness) as (near, far):
        await far.refuse("this node serves no such model")
        await far.close()
        with pytest.raises(Refused, match="no such model"):
            await near.receive()


@promised
async def an_answer_is_heard_also_where_the_question_had_not_ended(harness: Harness) -> None:
    async with a_stream(harness) as (near, far):
        await far.send(b"no")
        await far.finish()
        await far.close()
        with suppress(NotWanted):
            for _ in range(100):
                await near.send(b"please")
                await asyncio.sleep(0.001)
        await near.finish()
        assert await near.receive() == b"no"
        assert await near.receive() is None


@promised
async def cancelled_reads_lose_nothing(harness: Harness) -> None:
    frames = [b"%d" % number * 3000 for number in range(100)]
    async with a_stream(harness) as (near, far), asyncio.TaskGroup() as tasks:

        async def send() -> None:
            for number, frame in enumerate(frames):
                await near.send(frame)
                await asyncio.sleep(0.001 * (number % 3))
            await near.finish()

        tasks.create_task(send())
        received: list[bytes | None] = []
        while None not in received:
            with suppress(TimeoutError):
                async with asyncio.timeout(0.0005):
                    received.append(await far.receive())
        assert received == [*frames, None]


@promised
async def a_cancelled_send_breaks_the_stream(harness: Harness) -> None:
    async with a_stream(harness) as (near, _):
        with suppress(TimeoutError):
            async with asyncio.timeout(1):
                await without_end(lambda: near.send(b"x" * FRAME_BYTES_MAX))
        with pytest.raises(Unreachable):
            await near.send(b"more")


@promised
async def datagrams_arrive_mostly(harness: Harness) -> None:
    async with members(harness) as (near, far):
        data = b"x" * DATAGRAM_BYTES_MAX
        arrived: set[bytes] = set()
        while not arrived:
            near.send_datagram(data)
            with suppress(TimeoutError):
                async with asyncio.timeout(0.5):
                    arrived.add(await far.receive_datagram())
        assert arrived == {data}
        with pytest.raises(ValueError, match="at most"):
            near.send_datagram(data + b"x")


@promised
async def the_round_trip_is_measured(harness: Harness) -> None:
    async with members(harness) as (near, _):
        while near.round_trip_s is None:  # the first echo may get lost; with streams open there are more
            async with near.stream(Kind.TUNNEL):
                await asyncio.sleep(0.1)
        assert 0 < near.round_trip_s < 1


@promised
async def a_way_without_a_relay_is_known_as_one(harness: Harness) -> None:
    async with members(harness) as (near, far):
        assert (near.is_relayed, far.is_relayed) == (False, False)
        near.close("enough")
        await far.wait_closed()
        assert (near.is_relayed, far.is_relayed) == (False, False)


@promised
async def a_stranger_gets_few_streams_and_a_member_many(harness: Harness) -> None:
    async with strangers(harness) as (near, far):

        async def opened() -> Any:
            pipe = await raw_pipe(near)
            await pipe.write(data_frame(bytes((Kind.JOIN, 1))))
            return pipe

        pipes = [await opened() for _ in range(4)]
        streams = [await far.accept() for _ in range(4)]
        surplus = await opened()
        await until_unreachable(lambda: _some_bytes(surplus))
        far.trust()
        pipes += [await opened() for _ in range(150)]
        streams += [await far.accept() for _ in range(150)]
        for stream in streams:
            await stream.close()
        for pipe in pipes:
            await pipe.abort()


async def _some_bytes(pipe: Any) -> None:
    if not await pipe.read(100):
        raise Unreachable("a reset pipe may read as ended")


@promised
async def a_stream_waiting_for_a_silent_peer_ends_in_time(harness: Harness) -> None:
    async with harness.far_node() as far, harness.transport() as here:
        near = await here.connect(far.me, far.addresses)
        async with near.stream(Kind.TUNNEL) as stream:
            await stream.send(b"are you there?")
            assert await stream.receive() == b"are you there?"
            await far.fall_silent()
            async with asyncio.timeout(harness.notice_seconds_max):
                assert "silent" in await until_unreachable(stream.receive)


@promised
async def an_idle_connection_is_not_guarded_and_lives_on(harness: Harness) -> None:
    async with members(harness) as (near, far):
        await asyncio.sleep(6)
        async with near.stream(Kind.HELLO) as sending:
            receiving = await far.accept()
            await sending.send(b"still here")
            assert await receiving.receive() == b"still here"
            await receiving.close()


@promised
async def a_killed_peer_that_comes_again_is_reached_at_once(harness: Harness) -> None:
    async with harness.far_node() as far, asyncio.timeout(PATIENCE_S), harness.transport() as here:
        old = await here.connect(far.me, far.addresses)
        async with old.stream(Kind.TUNNEL) as stream:
            await stream.send(b"one")
            assert await stream.receive() == b"one"
            await far.restart()
            async with asyncio.timeout(5):
                near = await here.connect(far.me, far.addresses)
            async with near.stream(Kind.TUNNEL) as again:
                await again.send(b"two")
                assert await again.receive() == b"two"


@promised
async def after_a_silence_a_new_connection_works_at_once(harness: Harness) -> None:
    async with harness.far_node() as far, asyncio.timeout(PATIENCE_S), harness.transport() as here:
        old = await here.connect(far.me, far.addresses)
        async with old.stream(Kind.TUNNEL) as stream:
            await far.fall_silent()
            await until_unreachable(stream.receive)
        await far.restart()
        async with asyncio.timeout(5):
            near = await here.connect(far.me, far.addresses)
        async with near.stream(Kind.TUNNEL) as again:
            await again.send(b"back")
            assert await again.receive() == b"back"
