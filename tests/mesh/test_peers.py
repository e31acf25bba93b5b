"""The door: what strangers get (nothing), what members get, and how connections come and go."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from random import Random

import pytest

from mesh_llm.core.ids import NodeId
from mesh_llm.mesh.admission.hello import Hello, encode_hello
from mesh_llm.mesh.admission.joining import Declined, JoinRequest, decode_answer, encode_request
from mesh_llm.mesh.admission.ledger import founded
from mesh_llm.mesh.gossip import exchange, wire
from mesh_llm.mesh.gossip.exchange import View
from mesh_llm.mesh.gossip.messages import DIGEST_BYTES, Ping
from mesh_llm.mesh.network.memory_transport import MemoryNetwork, MemoryTransport
from mesh_llm.mesh.peers import (
    CONNECTIONS_OF_PEER_MAX,
    IDLE_CHECKS_APART_S,
    IDLE_SECONDS_MAX,
    JOIN_ATTEMPTS_MAX,
    SHUNNED,
    SHUNNED_SECONDS,
    STRANGER_SECONDS_MAX,
    STRANGERS_MAX,
    Peers,
)
from mesh_llm.mesh.transport import (
    Addresses,
    Connection,
    FastPath,
    Kind,
    PeerError,
    Refused,
    Stream,
    Unreachable,
)
from mesh_llm.runtime.tasks import beside
from tests.mesh.household import LoopClock, Town, all_see_each_other, in_town, until
from tests.mesh.members import NONCE, founder, key, let_in, line
from tests.simulation.virtual_time import run_virtually

MEMBERS_KINDS = [kind for kind in Kind if kind not in (Kind.HELLO, Kind.JOIN)]
PING = wire.encode(Ping(1, 5, 7, bytes(DIGEST_BYTES), 0))


async def reason_of(connection: Connection) -> str:
    async with asyncio.timeout(30):
        return await connection.wait_closed()


# -- strangers ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", MEMBERS_KINDS)
def test_a_stranger_is_refused_politely_whatever_it_wants(kind: Kind):
    async def story(town: Town) -> None:
        node = await town.founder()
        async with town.voice() as stranger:
            connection = await stranger.call(node)
            with pytest.raises(Refused, match="Show a certificate first"):
                await stranger.say(connection, kind, exchange.encode(View(())))
            assert node.mesh.protocol_errors == 0

    in_town(story)


def test_a_strangers_datagrams_are_ignored():
    async def story(town: Town) -> None:
        one, other = await town.mesh_of(2)
        async with town.voice() as stranger:
            connection = await stranger.call(one)
            for _ in range(1000):
                connection.send_datagram(PING)
                connection.send_datagram(b"\xff nonsense")
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(5):
                    await connection.receive_datagram()
        assert one.mesh.protocol_errors == 0 and all_see_each_other([one, other])

    in_town(story)


def test_a_stranger_that_says_nothing_is_cut_off():
    async def story(town: Town) -> None:
        node = await town.founder()
        async with town.voice() as stranger:
            connection = await stranger.call(node)
            began = town.clock.monotonic()
            assert await reason_of(connection) == "no certificate was shown in time"
            assert town.clock.monotonic() - began == pytest.approx(STRANGER_SECONDS_MAX, abs=1)

    in_town(story)


@pytest.mark.parametrize("kind", [Kind.HELLO, Kind.JOIN])
def test_a_stranger_that_does_not_finish_its_sentence_is_cut_off(kind: Kind):
    async def story(town: Town) -> None:
        node = await town.founder()
        async with town.voice() as stranger:
            connection = await stranger.call(node)
            async with connection.stream(kind):
                assert await reason_of(connection) == "no certificate was shown in time"

    in_town(story)


def test_a_stranger_has_few_tries():
    async def story(town: Town) -> None:
        node = await town.founder()
        async with town.voice() as stranger:
            connection = await stranger.call(node)
            for _ in range(JOIN_ATTEMPTS_MAX - 1):
                (answer,) = await stranger.say(connection, Kind.JOIN, encode_request(JoinRequest("x", "1")))
                assert isinstance(decode_answer(answer), Declined)
            with pytest.raises(Refused):
                await stranger.say(connection, Kind.TUNNEL, b"?")
            assert await reason_of(connection) == "too many tries"
            await stranger.join(node.invite())

    in_town(story)


@pytest.mark.parametrize("frame", [b"\xc1", b"\x91" * 5000, bytes(200_000)])
@pytest.mark.parametrize("kind", [Kind.HELLO, Kind.JOIN])
def test_a_stranger_that_talks_nonsense_is_counted_and_cut_off(kind: Kind, frame: bytes):
    async def story(town: Town) -> None:
        node = await town.founder()
        async with town.voice() as stranger:
            connection = await stranger.call(node)
            with pytest.raises(Unreachable):
                await stranger.say(connection, kind, frame)
            assert "cannot be read" in (reason := await reason_of(connection)) or "are allowed" in reason
        assert node.mesh.protocol_errors == 1

    in_town(story)


def test_a_certificate_is_refused_with_its_reason():
    async def story(town: Town) -> None:
        node = await town.founder()
        own = let_in(founder(1), 90).certificate
        cases = {
            "foreign: ": line(8, 90)[1].certificate,
            "not-yours: ": let_in(founder(1), 91).certificate,
            "damaged: ": own[:-1] + bytes([own[-1] ^ 1]),
        }
        async with town.voice() as stranger:
            for reason, certificate in cases.items():
                connection = await stranger.call(node)
                hello = encode_hello(Hello(certificate, "1"))
                with pytest.raises(Refused, match=reason):
                    await stranger.say(connection, Kind.HELLO, hello)
                assert (await reason_of(connection)).startswith(reason)
            stranger.certificate = own
            await stranger.greet(node)

    in_town(story)


def test_many_silent_strangers_do_not_keep_a_member_out():
    async def story(town: Town) -> None:
        node = await town.founder()
        async with AsyncExitStack() as crowd:
            connections: list[Connection] = []
            for number in range(STRANGERS_MAX + 10):
                stranger = await crowd.enter_async_context(town.voice(100 + number))
                connections.append(await stranger.call(node))
                await asyncio.sleep(0.01)
            assert await reason_of(connections[0]) == "too many strangers at once: try again"
            guest = await town.guest(node.invite())
            await until(lambda: all_see_each_other([node, guest]), within_s=5)

    in_town(story)


# -- members that break the rules --------------------------------------------------------------------------


def test_a_member_that_keeps_sending_nonsense_is_cut_off_for_a_minute():
    async def story(town: Town) -> None:
        one, other = await town.mesh_of(2)
        async with town.insider() as insider:
            connection = await insider.greet(one)
            connection.send_datagram(b"\xff\xff")
            await insider.say(connection, Kind.RECORDS, bytes(8))
            assert one.mesh.protocol_errors == 0  # an unknown kind is a newer version's
            for _ in range(20):
                connection.send_datagram(b"\x01\xff")
            assert await reason_of(connection) == SHUNNED
            assert one.mesh.protocol_errors >= 8
            with pytest.raises(Refused, match="come again in a minute"):
                await insider.greet(one)
            await insider.greet(other)
            await asyncio.sleep(SHUNNED_SECONDS + 1)
            await insider.greet(one)
        assert all_see_each_other([one, other])

    in_town(story)


@pytest.mark.parametrize("kind", [Kind.GOSSIP, Kind.NOTICE, Kind.RECORDS])
def test_nonsense_on_a_members_stream_ends_the_stream_and_is_counted(kind: Kind):
    async def story(town: Town) -> None:
        one, other = await town.mesh_of(2)
        async with town.insider() as insider:
            connection = await insider.greet(one)
            with suppress(Unreachable):  # an answer may be out before the nonsense is read
                await insider.say(connection, kind, b"\x01\xff", b"\xc1\xc1")
            assert one.mesh.protocol_errors == 1
            await insider.say(connection, Kind.RECORDS, bytes(8))
        assert all_see_each_other([one, other])

    in_town(story)


@pytest.mark.parametrize("kind", [Kind.GOSSIP, Kind.NOTICE, Kind.RECORDS])
def test_a_member_that_leaves_a_stream_open_is_not_waited_for(kind: Kind):
    async def story(town: Town) -> None:
        node = await town.founder()
        async with town.insider() as insider:
            connection = await insider.greet(node)
            with suppress(Unreachable):
                async with asyncio.timeout(20), connection.stream(kind) as stream:
                    while await stream.receive() is not None:
                        pass
            assert await insider.say(connection, Kind.TUNNEL, b"?")

    in_town(story)


def test_members_are_answered_on_the_kinds_that_a_node_answers_and_refused_politely_on_others():
    async def story(town: Town) -> None:
        node = await town.founder()
        async with town.insider() as insider:
            connection = await insider.greet(node)
            with pytest.raises(Refused, match="This node answers no stage streams"):
                await insider.say(connection, Kind.STAGE, b"?")
            assert node.mesh.protocol_errors == 0

    in_town(story)


@pytest.mark.parametrize("kind", [Kind.STAGE, Kind.RING, Kind.BYTES])
def test_each_kind_goes_to_its_own_answerer_and_no_strangers_stream_to_any(kind: Kind):
    asked: list[tuple[NodeId, Kind]] = []

    async def answer(stream: Stream) -> None:
        asked.append((stream.peer, stream.kind))
        await stream.send(await stream.receive() or b"")
        await stream.finish()

    async def story(town: Town) -> None:
        node = town.resident()
        node.answers[kind] = answer
        await node.live(founded(node.id, NONCE))
        other = await town.guest(node.invite())
        async with town.voice(91) as stranger:
            with pytest.raises(Refused, match="certificate"):
                await stranger.say(await stranger.call(node), kind, b"?")
        async with asyncio.timeout(30), other.mesh.stream(node.id, kind) as stream:
            await stream.send(b"hello")
            assert await stream.receive() == b"hello"
        assert asked == [(other.id, kind)]

    in_town(story)


def test_a_member_says_hello_once():
    async def story(town: Town) -> None:
        node = await town.founder()
        async with town.insider() as insider:
            connection = await insider.greet(node)
            for kind in (Kind.HELLO, Kind.JOIN):
                with pytest.raises(Refused, match="member already"):
                    await insider.say(connection, kind, b"again")
            assert await insider.say(connection, Kind.TUNNEL, b"hello") == [b"node 1 heard hello"]

    in_town(story)


def test_a_kicked_member_loses_every_connection_that_it_has():
    async def story(town: Town) -> None:
        node = await town.founder()
        async with town.insider() as insider:
            connections = [await insider.greet(node) for _ in range(CONNECTIONS_OF_PEER_MAX)]
            node.mesh.kick(insider.id)
            for connection in connections:
                assert (await reason_of(connection)).startswith("expelled: ")
            with pytest.raises(Refused, match="expelled: "):
                await insider.greet(node)

    in_town(story)


def test_a_member_has_few_connections_and_the_newest_stay():
    async def story(town: Town) -> None:
        node = await town.founder()
        async with town.insider() as insider:
            connections = [await insider.greet(node) for _ in range(CONNECTIONS_OF_PEER_MAX + 2)]
            for connection in connections[:2]:
                assert await reason_of(connection) == "there is a newer connection"
            for connection in connections[2:]:
                assert await insider.say(connection, Kind.TUNNEL, b"?") == [b"node 1 heard ?"]

    in_town(story)


# -- connections between members, without a mesh -----------------------------------------------------------


class Friends:
    """A household that knows its friends by a word."""

    def __init__(self, transport: MemoryTransport) -> None:
        self.book: dict[NodeId, Addresses] = {}
        self.word = b"friend"
        self.heard: list[tuple[NodeId, bytes]] = []
        self.lost_ones: list[tuple[NodeId, str]] = []
        self.refusals: list[tuple[NodeId, str]] = []
        self.peers = Peers(transport, self, LoopClock())
        self.transport = transport

    def hello(self, fast_path: FastPath | None) -> bytes:
        return self.word

    def welcome(self, peer: NodeId, greeting: bytes) -> FastPath | None:
        if greeting == b"enemy":
            raise Refused("expelled: no enemies")
        if greeting != b"friend":
            raise PeerError("bad manners")
        return None

    def met(self, peer: NodeId) -> None:
        pass

    def addresses_of(self, peer: NodeId) -> Addresses:
        return self.book.get(peer, Addresses())

    async def admit(self, stream: Stream) -> None:
        await stream.refuse("full")

    async def answer(self, stream: Stream) -> None:
        while (frame := await stream.receive()) is not None:
            await stream.send(frame)
        await stream.finish()

    def receive(self, peer: NodeId, datagram: bytes) -> None:
        self.heard.append((peer, datagram))

    def refused(self, peer: NodeId, reason: str) -> None:
        self.refusals.append((peer, reason))

    def lost(self, peer: NodeId, reason: str) -> None:
        self.lost_ones.append((peer, reason))

    async def asks(self, other: "Friends") -> bytes | None:
        async with self.peers.stream(other.transport.me, Kind.TUNNEL) as stream:
            await stream.send(b"ping")
            await stream.finish()
            return await stream.receive()


@asynccontextmanager
async def two_houses() -> AsyncGenerator[tuple[Friends, Friends, MemoryNetwork]]:
    network = MemoryNetwork(Random(3))
    async with network.transport(key(1).node) as here, network.transport(key(2).node) as there:
        one, other = Friends(here), Friends(there)
        one.book[there.me], other.book[here.me] = there.addresses, here.addresses
        async with beside(one=one.peers.run(), other=other.peers.run()):
            await asyncio.sleep(0)
            yield one, other, network


def test_who_dial_each_other_at_once_both_get_through():
    async def story() -> None:
        async with two_houses() as (one, other, _):
            answers = await asyncio.gather(*(a.asks(b) for a, b in [(one, other), (other, one)] * 20))
            assert answers == [b"ping"] * 40
            assert one.lost_ones == other.lost_ones == []
            one.peers.close(other.transport.me, "enough")
            await asyncio.sleep(1)
            assert other.peers.connected() == ()
            assert other.lost_ones == [(one.transport.me, "enough")] and one.lost_ones == []

    run_virtually(story())


def test_an_unused_connection_closes_and_is_no_loss():
    async def story() -> None:
        async with two_houses() as (one, other, _):
            await one.asks(other)
            await asyncio.sleep(IDLE_SECONDS_MAX - 1)
            assert one.peers.connected() == (other.transport.me,)
            await asyncio.sleep(IDLE_CHECKS_APART_S + 2)
            assert one.peers.connected() == other.peers.connected() == ()
            assert one.lost_ones == other.lost_ones == []
            assert await other.asks(one) == b"ping"

    run_virtually(story())


def test_a_connection_in_use_stays():
    async def story() -> None:
        async with two_houses() as (one, other, _):
            async with one.peers.stream(other.transport.me, Kind.TUNNEL) as stream:
                for _ in range(5):
                    await asyncio.sleep(IDLE_SECONDS_MAX)
                    await stream.send(b"still there?")
                    assert await stream.receive() == b"still there?"
            for number in range(10):
                await asyncio.sleep(IDLE_SECONDS_MAX / 2)
                one.peers.send(other.transport.me, bytes([number]))
            assert one.peers.connected() and one.lost_ones == other.lost_ones == []
            await asyncio.sleep(1)
            assert [datagram for _, datagram in other.heard] == [bytes([number]) for number in range(10)]

    run_virtually(story())


def test_a_dead_peer_is_lost_once():
    async def story() -> None:
        async with two_houses() as (one, other, network):
            await asyncio.gather(one.asks(other), other.asks(one))
            network.kill(other.transport.me)
            with pytest.raises(Unreachable):
                await one.asks(other)
            await asyncio.sleep(60)
            assert [peer for peer, _ in one.lost_ones] == [other.transport.me]

    run_virtually(story())


def test_all_who_wait_for_a_dead_peer_hear_at_once_that_it_does_not_answer():
    async def story() -> None:
        async with two_houses() as (one, other, network):
            network.kill(other.transport.me)
            began = asyncio.get_running_loop().time()
            outcomes = await asyncio.gather(*(one.asks(other) for _ in range(50)), return_exceptions=True)
            assert all(isinstance(outcome, Unreachable) for outcome in outcomes)
            assert asyncio.get_running_loop().time() - began < 11

    run_virtually(story())


def test_who_gives_up_waiting_does_not_spoil_the_dial_for_others():
    async def story() -> None:
        async with two_houses() as (one, other, _):
            async with asyncio.TaskGroup() as tasks:
                impatient = tasks.create_task(one.asks(other))
                patient = tasks.create_task(one.asks(other))
                await asyncio.sleep(0)
                impatient.cancel()
            assert patient.result() == b"ping" and impatient.cancelled()

    run_virtually(story())


def test_datagrams_to_a_peer_that_does_not_answer_dial_once_in_a_while():
    async def story() -> None:
        async with two_houses() as (one, other, network):
            network.cut(one.transport.me, other.transport.me)
            for number in range(100):
                one.peers.send(other.transport.me, bytes([number]))
                await asyncio.sleep(0.5)
            network.mend(one.transport.me, other.transport.me)
            async with asyncio.timeout(20):
                while not other.heard:
                    one.peers.send(other.transport.me, b"there again?")
                    await asyncio.sleep(0.5)
            assert other.heard[0][1] == b"there again?"

    run_virtually(story())


def test_a_node_that_is_refused_hears_so_and_one_that_refuses_does_not_think_it_was():
    async def story() -> None:
        async with two_houses() as (one, other, _):
            one.word = b"enemy"
            with pytest.raises(Refused, match="no enemies"):
                await one.asks(other)
            assert one.refusals == [(other.transport.me, "expelled: no enemies")]
            with pytest.raises(Unreachable, match="no member"):
                await other.asks(one)
            assert other.refusals == []
            await asyncio.sleep(1)
            assert one.lost_ones == [(other.transport.me, "expelled: no enemies")]
            assert one.peers.connected() == other.peers.connected() == ()

    run_virtually(story())


def test_bad_manners_in_the_answer_to_a_hello_are_counted():
    async def story() -> None:
        async with two_houses() as (one, other, _):
            other.word = b"grunt"
            with pytest.raises(Unreachable, match="bad manners"):
                await one.asks(other)
            assert one.peers.protocol_errors == 1 and not one.peers.connected()

    run_virtually(story())


def test_what_a_caller_finds_wrong_in_an_answer_is_counted():
    async def story() -> None:
        async with two_houses() as (one, other, _):
            with suppress(PeerError):
                async with one.peers.stream(other.transport.me, Kind.GOSSIP):
                    raise PeerError("I did not ask for that")
            assert one.peers.protocol_errors == 1

    run_virtually(story())


def test_after_its_transport_is_closed_nothing_is_dialled_and_run_ends():
    async def story() -> None:
        network = MemoryNetwork(Random(3))
        async with network.transport(key(1).node) as here, asyncio.TaskGroup() as tasks:
            house = Friends(here)
            running = tasks.create_task(house.peers.run())
            await asyncio.sleep(0)
            await here.close()
            async with asyncio.timeout(5):
                await running
            house.peers.send(key(2).node, b"?")
            with pytest.raises(Unreachable):
                async with house.peers.stream(key(2).node, Kind.TUNNEL):
                    pass

    run_virtually(story())
