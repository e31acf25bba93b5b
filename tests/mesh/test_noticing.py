"""How notices travel between whole nodes, and what false ones come to."""

import asyncio
from contextlib import suppress
from random import Random

import pytest

from mesh_llm.mesh.admission.notices import encode_batches, expulsion, revocation
from mesh_llm.mesh.transport import Connection, Kind, Unreachable
from tests.mesh.household import Town, Voice, all_see_each_other, in_town, until
from tests.mesh.members import NOW, founder, key, line


async def tell(voice: Voice, connection: Connection, *notices: bytes) -> None:
    with suppress(Unreachable):  # broken off where it breaks the rules
        await voice.say(connection, Kind.NOTICE, *encode_batches(notices))


def test_two_halves_that_each_kicked_somebody_agree_after_the_heal():
    async def story(town: Town) -> None:
        nodes = await town.mesh_of(6)
        one, two, bad, other, three, worse = nodes
        ones, others = [one, two, bad], [other, three, worse]
        town.cut(ones, others)
        await asyncio.sleep(30)
        one.mesh.kick(bad.id)
        other.mesh.kick(worse.id)
        await asyncio.sleep(5)
        town.mend(ones, others)
        await until(lambda: all_see_each_other([one, two, other, three]), within_s=20)
        await asyncio.sleep(30)
        assert all_see_each_other([one, two, other, three])
        assert len({node.kept[-1].notices and frozenset(node.kept[-1].notices) for node in nodes[:2]}) == 1

    in_town(story)


@pytest.mark.parametrize("name", ["forged", "foreign", "by a stranger"])
def test_a_false_notice_is_counted_and_moves_nobody(name: str):
    async def story(town: Town) -> None:
        one, other = await town.mesh_of(2)
        own = one.kept[-1].certificate
        false = {
            "forged": expulsion(key(66), own, other.id, (), NOW),
            "foreign": expulsion(key(8), founder(8).certificate, other.id, (), NOW),
            "by a stranger": expulsion(key(66), line(8, 66)[1].certificate, other.id, (), NOW),
        }[name]
        async with town.insider() as liar:
            connection = await liar.greet(one)
            await tell(liar, connection, false)
            assert one.mesh.protocol_errors == 1
            await asyncio.sleep(10)
        assert all_see_each_other([one, other]) and other.mesh.protocol_errors == 0
        assert one.kept[-1].notices == ()

    in_town(story)


def test_what_stood_before_a_false_notice_in_its_frame_counts():
    async def story(town: Town) -> None:
        one, other, victim = await town.mesh_of(3)
        true = expulsion(one.key, one.kept[-1].certificate, victim.id, (), NOW)
        false = expulsion(key(66), one.kept[-1].certificate, other.id, (), NOW)
        async with town.insider() as teller:
            await tell(teller, await teller.greet(one), true, false)
            assert one.mesh.protocol_errors == 1
            await until(lambda: all_see_each_other([one, other]), within_s=5)
        assert one.kept[-1].notices == other.kept[-1].notices == (true,)

    in_town(story)


def test_many_notices_reach_everybody_without_a_stream_or_a_write_for_each():
    async def story(town: Town) -> None:
        one, two, three = nodes = await town.mesh_of(3)
        chance = Random(1)
        notices = [
            revocation(one.key, one.kept[-1].certificate, chance.randbytes(16), NOW) for _ in range(400)
        ]
        writes = [len(node.kept) for node in nodes]
        async with town.insider() as teller:
            await tell(teller, await teller.greet(one), *notices)
            await until(lambda: all(len(node.kept[-1].notices) == 400 for node in nodes), within_s=5)
        assert all(len(node.kept) - before < 20 for node, before in zip(nodes, writes, strict=True))
        assert all_see_each_other([one, two, three])

    in_town(story)


def test_a_notice_that_is_known_is_not_told_again():
    async def story(town: Town) -> None:
        one, other, victim = await town.mesh_of(3)
        one.mesh.kick(victim.id)
        await asyncio.sleep(2)
        writes = len(other.kept)
        (notice, *_) = one.kept[-1].notices
        async with town.insider() as teller:
            connection = await teller.greet(other)
            for _ in range(50):
                await tell(teller, connection, notice)
        assert len(other.kept) - writes <= 2

    in_town(story)


def test_records_that_are_the_same_are_not_exchanged():
    async def story(town: Town) -> None:
        one, victim = await town.mesh_of(2)
        async with town.insider() as asker:
            connection = await asker.greet(one)
            (digest,) = await asker.say(connection, Kind.RECORDS, bytes(8))
            assert await asker.say(connection, Kind.RECORDS, digest) == [digest]
            one.mesh.kick(victim.id)
            await asyncio.sleep(1)
            (changed, *frames) = await asker.say(connection, Kind.RECORDS, digest)
            assert changed != digest and len(frames) == 1

    in_town(story)


def test_who_was_thrown_out_by_one_that_was_thrown_out_itself_is_a_member_again():
    """In two halves of a mesh, neither knowing of the other's decision: the more senior one's holds."""

    async def story(town: Town) -> None:
        senior, other = await town.mesh_of(2)
        junior = await town.guest(other.invite())
        victim = await town.guest(senior.invite())
        nodes = [senior, other, junior, victim]
        await until(lambda: all_see_each_other(nodes), within_s=5)
        town.cut([senior, victim], [other, junior])
        await asyncio.sleep(30)
        junior.mesh.kick(victim.id)
        senior.mesh.kick(junior.id)
        await asyncio.sleep(5)
        town.mend([senior, victim], [other, junior])
        await until(lambda: all_see_each_other([senior, other, victim]), within_s=60)
        async with asyncio.timeout(60):
            await junior.mesh.removed.wait()

    in_town(story)
