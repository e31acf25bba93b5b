"""What a member with bad intent, or a broken one, can say in gossip, and how little comes of it."""

import asyncio
from collections.abc import Callable

import pytest

from mesh_llm.core.ids import NodeId
from mesh_llm.mesh.gossip import exchange, wire
from mesh_llm.mesh.gossip.advert import DOMAIN, Advert, SignedAdvert, sign_advert
from mesh_llm.mesh.gossip.exchange import AdvertsWanted, View
from mesh_llm.mesh.gossip.messages import DIGEST_BYTES, Gossip, Ping, PingReport
from mesh_llm.mesh.gossip.news import Health, News
from mesh_llm.mesh.transport import Connection, Kind
from tests.mesh.household import Resident, Town, Voice, all_see_each_other, in_town, until
from tests.mesh.members import key, line

FALSE_SIGNATURE = bytes(64)


def nobody(number: int) -> NodeId:
    return key(1000 + number).node


def said_of(node: NodeId, health: Health, incarnation: int = 0) -> News:
    signature = FALSE_SIGNATURE if health is Health.LEFT else b""
    return News(node, incarnation, health, 7, signature)


async def live_on(liar: Voice, connection: Connection, *, seconds: int = 1) -> None:
    """As a member does who asks, so that it is listened to."""
    for sequence in range(seconds):
        connection.send_datagram(wire.encode(Ping(sequence, 1, 0, bytes(DIGEST_BYTES), 0)))
        await asyncio.sleep(1)


@pytest.mark.parametrize("health", [Health.SUSPECT, Health.DEAD, Health.LEFT])
@pytest.mark.parametrize("incarnation", [0, 2**31, 2**62])
def test_bad_news_of_the_living_is_not_believed(health: Health, incarnation: int):
    async def story(town: Town) -> None:
        nodes = await town.mesh_of(3)
        news = tuple(said_of(node.id, health, incarnation) for node in nodes)
        async with town.insider() as liar:
            connection = await liar.greet(nodes[0])
            for _ in range(20):
                await live_on(liar, connection)
                connection.send_datagram(wire.encode(Gossip(news)))
                await liar.say(connection, Kind.GOSSIP, exchange.encode(View(news)))
                assert all({n.id for n in nodes} - {node.id} <= node.neighbours() for node in nodes)

    in_town(story)


def test_a_dead_node_does_not_live_because_one_member_says_so():
    """Where there are three helpers to ask; of fewer, one is believed (docs/protocols/gossip.md)."""

    async def story(town: Town) -> None:
        *nodes, victim = await town.mesh_of(6)
        async with town.insider() as liar:
            connection = await liar.greet(nodes[0])
            await victim.die()
            for sequence in range(25):
                connection.send_datagram(wire.encode(Gossip((said_of(victim.id, Health.ALIVE, 2**40),))))
                connection.send_datagram(wire.encode(PingReport(sequence, victim.id)))
                await live_on(liar, connection)
                if sequence >= 10:
                    assert all_see_each_other(nodes)

    in_town(story)


def test_members_that_nobody_ever_met_are_not_invented():
    async def story(town: Town) -> None:
        one, other = await town.mesh_of(2)
        async with town.insider() as liar:
            connection = await liar.greet(one)
            view = View(tuple(said_of(nobody(number), Health.ALIVE) for number in range(500)))
            await live_on(liar, connection)
            await liar.say(connection, Kind.GOSSIP, exchange.encode(view))
            await live_on(liar, connection, seconds=40)
        await asyncio.sleep(20)
        assert all_see_each_other([one, other])
        one.serve("news in spite of it")
        await until(lambda: other.offers()[one.id] == ("news in spite of it",), within_s=3)

    in_town(story)


def forged(of: Resident) -> SignedAdvert:
    said = Advert(of.id, 2**40, name="forged", certificate=of.kept[-1].certificate)
    return sign_advert(said, lambda body: key(66).sign(DOMAIN, body))


def foreign(_: Resident) -> SignedAdvert:
    certificate = line(8, 66)[1].certificate
    said = Advert(key(66).node, 1, name="foreign", certificate=certificate)
    return sign_advert(said, lambda body: key(66).sign(DOMAIN, body))


def unasked(of: Resident) -> SignedAdvert:
    said = Advert(of.id, 2**40, name="really mine", certificate=of.kept[-1].certificate)
    return sign_advert(said, lambda body: of.key.sign(DOMAIN, body))


@pytest.mark.parametrize("made", [forged, foreign, unasked])
def test_an_advert_that_is_forged_or_foreign_or_unasked_for_is_counted_and_not_held(
    made: Callable[[Resident], SignedAdvert],
):
    async def story(town: Town) -> None:
        one, other = await town.mesh_of(2)
        async with town.insider() as liar, asyncio.TaskGroup() as tasks:
            connection = await liar.greet(one)
            answering = tasks.create_task(answer_on(connection, exchange.encode(made(other))))
            wanted = nobody(1) if made is unasked else key(66).node if made is foreign else other.id
            for _ in range(5):
                connection.send_datagram(wire.encode(Gossip((News(wanted, 0, Health.ALIVE, 2**30),))))
                await live_on(liar, connection)
            assert one.mesh.protocol_errors > 0
            answering.cancel()
        names = {neighbour.advert.name for neighbour in one.mesh.neighbours()}
        assert names == {other.name}

    in_town(story)


async def answer_on(connection: Connection, frame: bytes) -> None:
    """Whatever is wanted, this comes."""
    while True:
        stream = await connection.accept()
        await stream.receive()
        await stream.send(frame)
        await stream.finish()
        await stream.close()


def test_a_member_that_is_asked_for_adverts_and_never_answers_delays_nobody():
    async def story(town: Town) -> None:
        one, other = await town.mesh_of(2)
        async with town.insider() as mute:
            connection = await mute.greet(one)
            for number in range(10):
                news = (News(other.id, 0, Health.ALIVE, 2**20 + number),)
                connection.send_datagram(wire.encode(Gossip(news)))
                await live_on(mute, connection)
            other.serve("something new")
            await until(lambda: one.offers()[other.id] == ("something new",), within_s=25)

    in_town(story)


def test_a_stream_of_a_kind_of_gossip_that_is_not_known_ends_without_an_answer():
    async def story(town: Town) -> None:
        node = await town.founder()
        async with town.insider() as newer:
            connection = await newer.greet(node)
            assert await newer.say(connection, Kind.GOSSIP, b"\x63from the future") == []
            assert node.mesh.protocol_errors == 0

    in_town(story)


def test_any_member_is_given_the_adverts_that_it_asks_for():
    async def story(town: Town) -> None:
        one, other = await town.mesh_of(2)
        async with town.insider() as asker:
            connection = await asker.greet(one)
            wanted = AdvertsWanted((one.id, other.id, nobody(1)))
            frames = await asker.say(connection, Kind.GOSSIP, exchange.encode(wanted))
            assert len(frames) == 2

    in_town(story)


def test_a_member_that_pings_becomes_known_and_one_that_stops_is_forgotten():
    async def story(town: Town) -> None:
        node = await town.founder()
        async with town.insider() as silent:
            connection = await silent.greet(node)
            await live_on(silent, connection, seconds=3)
            assert node.neighbours() == set()  # it has said nothing of itself
            async with asyncio.timeout(10):
                assert await connection.wait_closed() == "dead"

    in_town(story)
