"""Asking at doors: those that are there, those that are not, and those that lie."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from random import Random

import pytest

from mesh_llm.core.errors import InviteFault, InviteRefused
from mesh_llm.mesh.admission import invites
from mesh_llm.mesh.admission.admission import Admission
from mesh_llm.mesh.admission.invites import Door
from mesh_llm.mesh.admission.joining import Admitted, Declined, encode_answer
from mesh_llm.mesh.admission.ledger import Ledger
from mesh_llm.mesh.entering import DOOR_SECONDS_MAX, enter
from mesh_llm.mesh.gossip import exchange
from mesh_llm.mesh.gossip.advert import DOMAIN, Advert, sign_advert
from mesh_llm.mesh.transport import Addresses
from tests.mesh.household import Town, all_see_each_other, in_town, until
from tests.mesh.members import NOW, founder, key, let_in, line

OTHER_DOOR = 91


def token_for(*doors: Door, maker: Admission | None = None) -> str:
    return (maker or founder()).invite(list(doors), NOW, Random(5))


async def enter_by(town: Town, token: str) -> Ledger:
    async with town.voice(95) as newcomer:
        return await enter([invites.read(token)], newcomer.transport, "1", NOW)


async def fault_of(town: Town, token: str) -> InviteFault:
    with pytest.raises(InviteRefused) as refused:
        await enter_by(town, token)
    return refused.value.fault


@asynccontextmanager
async def a_door_that_says(town: Town, *frames: bytes) -> AsyncGenerator[Door]:
    """Where the founder of `members` should stand."""
    async with town.voice(1) as voice, asyncio.TaskGroup() as tasks:
        answering = tasks.create_task(voice.answer(*frames))
        yield Door(voice.id, voice.transport.addresses)
        answering.cancel()


def test_a_newcomer_remembers_the_maker_and_whom_the_door_introduced():
    async def story(town: Town) -> None:
        first, second, third = await town.mesh_of(3)
        ledger = await enter_by(town, second.invite())
        assert {member.node for member in ledger.members} == {first.id, second.id, third.id}
        assert all(member.addresses.direct for member in ledger.members)

    in_town(story)


def test_clients_are_not_introduced():
    async def story(town: Town) -> None:
        first = await town.founder()
        client = town.resident()
        client.role = "client"
        await client.live(None, first.invite())
        await until(lambda: all_see_each_other([first, client]), within_s=5)
        ledger = await enter_by(town, first.invite())
        assert {member.node for member in ledger.members} == {first.id}

    in_town(story)


def test_the_next_door_is_tried_where_the_first_is_shut():
    async def story(town: Town) -> None:
        first, second = await town.mesh_of(2)
        token = first.invite()
        await first.die()
        began = town.clock.monotonic()
        ledger = await enter_by(town, token)
        assert second.id in {member.node for member in ledger.members}
        assert town.clock.monotonic() - began < DOOR_SECONDS_MAX + 1

    in_town(story)


@pytest.mark.parametrize(
    "said",
    [
        (),
        (b"\xc1 nonsense",),
        (encode_answer(Admitted(let_in(founder(), 33).certificate)),),
        (encode_answer(Admitted(line(8, 95)[1].certificate)),),
        (encode_answer(Admitted(let_in(founder(), 95).certificate, (b"no notice",))),),
        (encode_answer(Declined(InviteFault.UNREACHABLE, "not mine")),),
    ],
    ids=["nothing", "nonsense", "another node", "another mesh", "a bad notice", "not here"],
)
def test_a_door_that_gives_nothing_of_worth_is_no_way_in_and_the_next_is_tried(said: tuple[bytes, ...]):
    async def story(town: Town) -> None:
        async with a_door_that_says(town, *said) as door:
            assert await fault_of(town, token_for(door)) is InviteFault.UNREACHABLE

    in_town(story)


def test_a_door_that_never_answers_is_given_up_in_time():
    async def story(town: Town) -> None:
        async with town.voice(1) as silent:
            began = town.clock.monotonic()
            token = token_for(Door(silent.id, silent.transport.addresses))
            assert await fault_of(town, token) is InviteFault.UNREACHABLE
            assert town.clock.monotonic() - began < DOOR_SECONDS_MAX + 1

    in_town(story)


@pytest.mark.parametrize("fault", [fault for fault in InviteFault if fault is not InviteFault.UNREACHABLE])
def test_what_the_door_declines_for_is_told_in_own_words(fault: InviteFault):
    async def story(town: Town) -> None:
        said = encode_answer(Declined(fault, "\x1b[2Jwords of a peer"))
        async with a_door_that_says(town, said) as door:
            with pytest.raises(InviteRefused) as refused:
                await enter_by(town, token_for(door))
        assert refused.value.fault is fault and "words of a peer" not in str(refused.value)

    in_town(story)


def advert(number: int, certificate: bytes, *, signer: int | None = None) -> bytes:
    said = Advert(key(number).node, 1, addresses=Addresses(("memory:9",)), certificate=certificate)
    signing = key(signer or number)
    return exchange.encode(sign_advert(said, lambda body: signing.sign(DOMAIN, body)))


def test_introductions_that_are_forged_are_left_out():
    async def story(town: Town) -> None:
        good, false = let_in(founder(), 20), let_in(founder(), 21)
        adverts = (
            advert(20, good.certificate),
            advert(21, false.certificate, signer=66),
            advert(22, line(8, 22)[1].certificate),
            advert(23, good.certificate),
            advert(95, let_in(founder(), 95).certificate),
            b"\xc1",
            exchange.encode(exchange.View(())),
        )
        mine = let_in(founder(), 95).certificate
        async with a_door_that_says(town, encode_answer(Admitted(mine, (), adverts))) as door:
            ledger = await enter_by(town, token_for(door))
        assert {member.node for member in ledger.members} == {key(1).node, key(20).node}

    in_town(story)


def test_a_single_use_invite_is_spent_only_when_somebody_has_come_with_it():
    async def story(town: Town) -> None:
        first = await town.founder()
        token = first.invite(once=True)
        town.network.kill(first.id)
        assert await fault_of(town, token) is InviteFault.UNREACHABLE
        assert first.kept[-1].used == ()

    in_town(story)


def test_a_door_that_cannot_write_lets_nobody_in_and_goes_on():
    async def story(town: Town) -> None:
        first = await town.founder()
        token = first.invite()
        first.disk_is_full = True
        assert await fault_of(town, token) is InviteFault.UNREACHABLE
        first.disk_is_full = False
        guest = await town.guest(token)
        await until(lambda: all_see_each_other([first, guest]), within_s=5)

    in_town(story)
