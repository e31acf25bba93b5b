"""Whole meshes in virtual time: what nodes promise each other, without HTTP and without engines."""

import asyncio
import logging

import pytest

from mesh_llm.core.errors import DiskFull, InviteFault, InviteRefused
from mesh_llm.mesh.admission import invites
from mesh_llm.mesh.admission.invites import Door
from mesh_llm.mesh.transport import Refused, Unreachable
from tests.mesh.household import Resident, Town, all_see_each_other, in_town, timers_of, until
from tests.simulation.seeds import COUNT

DEAD_S = 10.0
"""In which a dead node is out of everybody's sight."""
KICKED_S = 5.0
HEALED_S = 15.0


def test_nodes_that_come_one_after_the_other_see_each_others_offers():
    async def story(town: Town) -> None:
        first = await town.founder()
        second = await town.guest(first.invite())
        third = await town.guest(second.invite())
        nodes = [first, second, third]
        await until(lambda: all_see_each_other(nodes), within_s=5)
        assert third.offers() == {first.id: ("model 1",), second.id: ("model 2",)}
        assert first.offers() == {second.id: ("model 2",), third.id: ("model 3",)}
        assert {node.mesh.id for node in nodes} == {first.mesh.id}

    in_town(story)


def test_a_third_node_joins_through_the_second_while_the_first_is_away():
    async def story(town: Town) -> None:
        first, second = await town.mesh_of(2)
        token = first.invite()
        await first.leave()
        third = await town.guest(token)
        await until(lambda: all_see_each_other([second, third]), within_s=5)

    in_town(story)


def test_several_tokens_are_tried_in_turn():
    async def story(town: Town) -> None:
        dead, alive = await town.founder(), await town.founder()
        first, second = dead.invite(), alive.invite()
        await dead.die()
        guest = await town.guest(first, second)
        await until(lambda: all_see_each_other([alive, guest]), within_s=5)

    in_town(story)


def test_the_first_tokens_fault_is_told_where_none_is_good():
    async def story(town: Town) -> None:
        node = await town.founder()
        revoked, unreachable = node.invite(), (await town.founder()).invite()
        node.mesh.revoke(revoked)
        await town.residents[1].die()
        with pytest.raises(InviteRefused) as refused:
            await town.guest(revoked, unreachable)
        assert refused.value.fault is InviteFault.REVOKED
        with pytest.raises(InviteRefused) as refused:
            await town.guest(unreachable, revoked)
        assert refused.value.fault is InviteFault.UNREACHABLE

    in_town(story)


def test_a_changed_offer_reaches_everybody_within_seconds():
    async def story(town: Town) -> None:
        nodes = await town.mesh_of(6)
        for number in range(5):
            name = f"another {number}"
            nodes[0].serve(name)
            took = await until(
                lambda name=name: all(node.offers()[nodes[0].id] == (name,) for node in nodes[1:]), within_s=3
            )
            await asyncio.sleep(max(0, 0.2 * number - took))

    in_town(story)


def test_tunnels_reach_the_node_that_was_asked():
    async def story(town: Town) -> None:
        nodes = await town.mesh_of(3)
        for asker in nodes:
            for other in nodes:
                if other is not asker:
                    answer = await asker.asks(other.id, asker.name.encode())
                    assert answer == f"{other.name} heard {asker.name}".encode()

    in_town(story)


def test_how_busy_a_node_is_reaches_the_others():
    async def story(town: Town) -> None:
        one, other = await town.mesh_of(2)
        one.busy = 7
        await until(lambda: other.mesh.neighbours()[0].busy == 7, within_s=5)

    in_town(story)


@pytest.mark.parametrize("seed", range(5))
def test_a_killed_node_is_gone_within_ten_seconds(seed: int):
    async def story(town: Town) -> None:
        *others, victim = await town.mesh_of(5)
        await victim.die()
        await until(lambda: all_see_each_other(others), within_s=DEAD_S)

    in_town(story, seed=seed, loss=0.02)


def test_a_node_that_is_cut_off_is_gone_within_ten_seconds_and_sees_nobody_itself():
    async def story(town: Town) -> None:
        *others, victim = await town.mesh_of(4)
        town.cut([victim], others)
        await until(lambda: all_see_each_other(others) and not victim.neighbours(), within_s=DEAD_S)

    in_town(story)


def test_a_leaving_node_is_gone_at_once():
    async def story(town: Town) -> None:
        *others, leaver = await town.mesh_of(5)
        await leaver.leave()
        await until(lambda: all_see_each_other(others), within_s=0.5)

    in_town(story)


def test_a_node_that_has_left_is_quiet_until_it_ends():
    async def story(town: Town) -> None:
        *others, leaver = await town.mesh_of(4)
        await others[0].die()
        await leaver.mesh.leave()
        await asyncio.sleep(30)
        assert leaver.mesh.neighbours() is not None
        with pytest.raises(Unreachable):
            await leaver.asks(others[1].id)

    in_town(story)


@pytest.mark.parametrize("size", [2, 5])
def test_a_kicked_node_is_refused_by_all_within_five_seconds(size: int):
    async def story(town: Town) -> None:
        kicker, *others, victim = await town.mesh_of(size)
        kicker.mesh.kick(victim.id)
        staying = [kicker, *others]
        await until(lambda: all_see_each_other(staying), within_s=KICKED_S)
        for node in staying:
            with pytest.raises((Refused, Unreachable)):
                await victim.asks(node.id)
        async with asyncio.timeout(KICKED_S):
            await victim.mesh.removed.wait()
        await asyncio.sleep(60)
        assert all_see_each_other(staying) and not victim.neighbours()
        assert not any(node.mesh.removed.is_set() for node in staying)

    in_town(story)


def test_a_kicked_node_is_refused_by_members_who_were_not_connected_to_who_kicked():
    async def story(town: Town) -> None:
        kicker, between, far, victim = nodes = await town.mesh_of(4)
        town.cut([kicker], [far])
        await asyncio.sleep(15)
        assert all_see_each_other(nodes)
        kicker.mesh.kick(victim.id)
        await until(lambda: victim.id not in far.neighbours() | between.neighbours(), within_s=KICKED_S)
        with pytest.raises((Refused, Unreachable)):
            await victim.asks(far.id)

    in_town(story)


def test_a_member_who_slept_through_a_kick_hears_of_it_when_it_is_back():
    async def story(town: Town) -> None:
        kicker, other, sleeper, victim = await town.mesh_of(4)
        await sleeper.end()
        await asyncio.sleep(15)
        kicker.mesh.kick(victim.id)
        await asyncio.sleep(5)
        await sleeper.live(sleeper.kept[-1])
        await until(lambda: all_see_each_other([kicker, other, sleeper]), within_s=KICKED_S)
        with pytest.raises((Refused, Unreachable)):
            await victim.asks(sleeper.id)

    in_town(story)


def test_a_kicked_node_does_not_come_back_with_its_old_record_or_an_old_token():
    async def story(town: Town) -> None:
        kicker, victim = await town.mesh_of(2)
        token = kicker.invite()
        kicker.mesh.kick(victim.id)
        await asyncio.sleep(1)
        await victim.end()
        await victim.live(victim.kept[0])
        async with asyncio.timeout(KICKED_S):
            await victim.mesh.removed.wait()
        assert not kicker.neighbours() and not victim.neighbours()
        await victim.end()
        with pytest.raises(InviteRefused) as refused:
            await victim.live(None, token)
        assert refused.value.fault is InviteFault.EXPELLED

    in_town(story)


def test_a_node_that_restarts_comes_back_by_what_it_kept():
    async def story(town: Town) -> None:
        nodes = await town.mesh_of(3)
        second = nodes[1]
        await asyncio.sleep(10)
        await second.die()
        await until(lambda: second.id not in nodes[0].neighbours() | nodes[2].neighbours(), within_s=DEAD_S)
        second.models = ("a new model",)
        await second.live(second.kept[-1])
        await until(lambda: all_see_each_other(nodes), within_s=5)
        await until(lambda: nodes[0].offers()[second.id] == ("a new model",), within_s=5)

    in_town(story)


def test_a_node_that_restarts_before_anybody_missed_it_tells_its_new_offers():
    async def story(town: Town) -> None:
        nodes = await town.mesh_of(3)
        await asyncio.sleep(10)
        await nodes[1].die()
        nodes[1].models = ("a new model",)
        await nodes[1].live(nodes[1].kept[-1])
        await until(
            lambda: all(node.offers().get(nodes[1].id) == ("a new model",) for node in nodes[::2]), within_s=5
        )
        await until(lambda: all_see_each_other(nodes), within_s=5)

    in_town(story)


def test_a_whole_mesh_that_was_off_finds_itself_again_at_the_old_addresses_book():
    async def story(town: Town) -> None:
        nodes = await town.mesh_of(4)
        await asyncio.sleep(10)
        for node in nodes[1:]:
            await node.die()
        await asyncio.sleep(30)
        for node in nodes[1:]:
            await node.live(node.kept[-1])
        await until(lambda: all_see_each_other(nodes), within_s=HEALED_S)

    in_town(story)


def test_revoked_invites_let_nobody_in_at_any_door():
    async def story(town: Town) -> None:
        first, second = await town.mesh_of(2)
        token = first.invite()
        second.mesh.revoke(token)
        await asyncio.sleep(2)
        with pytest.raises(InviteRefused) as refused:
            await town.guest(token)
        assert refused.value.fault is InviteFault.REVOKED

    in_town(story)


def test_an_invite_for_one_lets_one_in_even_after_a_restart_of_its_maker():
    async def story(town: Town) -> None:
        first = await town.founder()
        token = first.invite(once=True)
        guest = await town.guest(token)
        await until(lambda: all_see_each_other([first, guest]), within_s=5)
        record = first.kept[-1]
        await first.die()
        await first.live(record)
        fresh = first.invite()
        assert fresh
        with pytest.raises(InviteRefused):
            await town.guest(token)  # its address is another now
        late = town.resident()
        with pytest.raises(InviteRefused) as refused:
            await late.live(None, at_new_doors(first, token))
        assert refused.value.fault is InviteFault.USED

    in_town(story)


def at_new_doors(issuer: Resident, token: str) -> str:
    """A token says where its doors are, signed: a restarted maker stands elsewhere. The same invite again."""
    old = invites.read(token)
    doors = [Door(issuer.id, issuer.transport.addresses)]
    return invites.make(
        issuer.key, old.certificate, doors, old.id, issued=old.issued, expires=old.expires, once=old.once
    )


@pytest.mark.parametrize("seed", range(3))
def test_a_partition_heals(seed: int):
    async def story(town: Town) -> None:
        nodes = await town.mesh_of(6)
        ones, others = nodes[:3], nodes[3:]
        town.cut(ones, others)
        await until(lambda: all_see_each_other(ones) and all_see_each_other(others), within_s=DEAD_S + 2)
        ones[0].serve("made in the dark")
        await asyncio.sleep(120)
        assert all_see_each_other(ones) and all_see_each_other(others)
        town.mend(ones, others)
        await until(lambda: all_see_each_other(nodes), within_s=HEALED_S)
        await until(
            lambda: all(node.offers()[ones[0].id] == ("made in the dark",) for node in others), within_s=2
        )

    in_town(story, seed=seed)


def test_who_was_let_in_by_a_door_that_is_gone_is_a_member_all_the_same():
    async def story(town: Town) -> None:
        first = await town.founder()
        second = await town.guest(first.invite())
        third = await town.guest(second.invite())
        await until(lambda: all_see_each_other([first, second, third]), within_s=5)
        await second.die()
        await until(lambda: all_see_each_other([first, third]), within_s=DEAD_S)
        await third.die()
        await third.live(third.kept[-1])
        await until(lambda: all_see_each_other([first, third]), within_s=HEALED_S)

    in_town(story)


def test_a_full_disk_ends_no_node_and_what_was_decided_is_written_later():
    async def story(town: Town) -> None:
        one, other, victim = await town.mesh_of(3)
        await asyncio.sleep(10)
        one.disk_is_full = True
        one.mesh.kick(victim.id)
        with pytest.raises(DiskFull):
            one.invite()
        await until(lambda: all_see_each_other([one, other]), within_s=5)
        assert one.kept[-1].notices == ()
        one.disk_is_full = False
        await until(lambda: len(one.kept[-1].notices) > 0, within_s=10)

    in_town(story)


def test_nodes_that_come_and_go_leave_nothing_behind():
    async def story(town: Town) -> None:
        node, other = await town.mesh_of(2)
        token = node.invite()
        for number in range(30):
            guest = await town.guest(token)
            await asyncio.sleep(number % 3)
            await (guest.die() if number % 2 else guest.leave())
        await asyncio.sleep(300)
        tasks, timers = len(asyncio.all_tasks()), len(timers_of(asyncio.get_running_loop()))
        assert tasks < 100 and timers < 500
        await asyncio.sleep(3600)
        assert all_see_each_other([node, other])
        assert len(asyncio.all_tasks()) <= tasks + 40  # the gone are asked after, some at a time
        assert len(timers_of(asyncio.get_running_loop())) <= timers + 100

    in_town(story)


@pytest.mark.parametrize(("count", "seconds"), [(6, 3600), (30, 3600 if COUNT > 20 else 120)])
def test_a_calm_mesh_stays_calm(count: int, seconds: int, caplog: pytest.LogCaptureFixture):
    """No living node is ever taken for dead or suspect, nothing piles up, and little is written."""

    async def story(town: Town) -> None:
        nodes = await town.mesh_of(count)
        await asyncio.sleep(20)
        tasks, timers = len(asyncio.all_tasks()), len(timers_of(asyncio.get_running_loop()))
        writes = sum(len(node.kept) for node in nodes)
        await asyncio.sleep(seconds)
        assert all_see_each_other(nodes)
        assert len(asyncio.all_tasks()) < 1.2 * tasks
        assert len(timers_of(asyncio.get_running_loop())) < 1.2 * timers
        assert sum(len(node.kept) for node in nodes) - writes <= count
        assert sum(node.mesh.protocol_errors for node in nodes) == 0
        # Here, not after the story: nodes are taken down one after the other, and some see others go.
        said = [record.getMessage() for record in caplog.records]
        assert said and not [line for line in said if line.endswith(("is dead", "is suspect"))]

    with caplog.at_level(logging.INFO, logger="mesh_llm.mesh.service"):
        in_town(story)
