"""Stages held for a leader: real streams, processes that stand for stages (landlords.py), leaders by hand."""

import asyncio
import os
import signal
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

import psutil
import pytest

from mesh_llm.core.errors import DownloadFailed
from mesh_llm.core.stages import LayerRange
from mesh_llm.mesh.transport import Kind, PeerError, Refused, Stream, Unreachable
from mesh_llm.splits import messages
from mesh_llm.splits.hosting import LEASES_MAX
from mesh_llm.splits.lease import Lease
from mesh_llm.splits.messages import (
    Accepted,
    Assign,
    Declined,
    Fetching,
    FromHolder,
    Link,
    Linked,
    Loading,
    Lost,
    Ready,
    RingHello,
    Survey,
    Unlinked,
    bytes_of,
)
from mesh_llm.splits.ring_door import RingDoor, ring_to
from mesh_llm.splits.surveying import Surveyor
from tests.mesh.members import key
from tests.splits.landlords import RING, ALandlord, an_order, holder, offering
from tests.splits.village import Village, Villager, until, village

LEADER, HOLDER = 1, 2


async def hear_until(lease: Lease, kind: type[FromHolder]) -> list[FromHolder]:
    heard = [await lease.hear()]
    while not isinstance(heard[-1], kind):
        heard.append(await lease.hear())
    return heard


@asynccontextmanager
async def a_lease(place: Village, order: Assign | None = None, number: int = HOLDER) -> AsyncGenerator[Lease]:
    async with Lease.open(place[number].id, order or an_order(), place[LEADER].stream) as lease:
        yield lease


def a_link(session: int = 1, **changes: object) -> Link:
    fields = {
        "session": bytes([session] * 16),
        "previous": bytes.fromhex(key(LEADER).node),
        "following": bytes.fromhex(key(LEADER).node),
        "following_stage": 0,
    }
    return Link(**fields | changes)  # type: ignore[arg-type]


@asynccontextmanager
async def linked(place: Village, lease: Lease, session: int = 1) -> AsyncGenerator[tuple[Stream, Stream]]:
    """The head's two ends of a ring with one stage: to the stage, and from it."""
    link = a_link(session)
    door = RingDoor()
    place[LEADER].answers[Kind.RING] = door.answer
    here = RingHello(ring=RING, session=link.session, stage=0)
    there = RingHello(ring=RING, session=link.session, stage=1)
    await lease.link(link)
    async with (
        door.expect(here, place[HOLDER].id) as arrived,
        ring_to(place[HOLDER].id, there, place[LEADER].stream) as outgoing,
    ):
        yield outgoing, await arrived


async def echoed(outgoing: Stream, incoming: Stream, data: bytes) -> bytes:
    await outgoing.send(data)
    got = b""
    while len(got) < len(data):
        got += await incoming.receive() or pytest.fail("the ring ended")
    return got


async def test_a_stage_is_fetched_loaded_linked_and_computes(tmp_path: Path):
    async with village(2) as place:
        hosting, landlord = holder(place[HOLDER], tmp_path, place.is_member)
        async with a_lease(place) as lease:
            heard = await hear_until(lease, Ready)
            assert heard == [
                Accepted(),
                Fetching(fraction=0.0),
                Fetching(fraction=1.0),
                Loading(fraction=0.5),
                Ready(memory_bytes=4096),
            ]
            (held,) = hosting.holdings()
            assert (held.leader, held.layers, held.phase) == (place[LEADER].id, LayerRange(2, 5), "ready")
            async with linked(place, lease) as (outgoing, incoming):
                assert await lease.hear() == Linked(session=bytes([1] * 16))
                assert await echoed(outgoing, incoming, b"abc") == b"bcd"
                assert await echoed(outgoing, incoming, b"a" * 900_000) == b"b" * 900_000
                assert hosting.holdings()[0].phase == "linked"
            assert landlord.files == 1
            await hear_until(lease, Unlinked)
            await lease.release()
            with pytest.raises(Unreachable, match="ended the lease"):
                await lease.hear()
        await until(lambda: not hosting.holdings())
        assert (landlord.taken, landlord.files, landlord.processes) == (0, 0, [])


async def test_a_session_that_ends_leaves_the_stage_ready_for_the_next(tmp_path: Path):
    async with village(2) as place:
        _, landlord = holder(place[HOLDER], tmp_path, place.is_member)
        async with a_lease(place) as lease:
            await hear_until(lease, Ready)
            for session in range(1, 6):
                async with linked(place, lease, session) as ring:
                    assert (await hear_until(lease, Linked))[-1] == Linked(session=bytes([session] * 16))
                    assert await echoed(*ring, b"abc") == b"bcd"
                (over,) = await hear_until(lease, Unlinked)
                assert isinstance(over, Unlinked) and over.session == bytes([session] * 16)
            assert landlord.started == 1


async def test_a_new_link_ends_the_session_before_it(tmp_path: Path):
    async with village(2) as place:
        holder(place[HOLDER], tmp_path, place.is_member)
        async with a_lease(place) as lease:
            await hear_until(lease, Ready)
            async with linked(place, lease, 1) as old:
                await hear_until(lease, Linked)
                async with linked(place, lease, 2) as ring:
                    await hear_until(lease, Linked)
                    assert await echoed(*ring, b"abc") == b"bcd"
                    with pytest.raises(Unreachable):
                        await old[1].receive()


async def test_the_last_word_of_a_child_comes_home_before_the_ring_ends(tmp_path: Path):
    async with village(2) as place:
        holder(place[HOLDER], tmp_path, place.is_member)
        async with a_lease(place) as lease:
            await hear_until(lease, Ready)
            async with linked(place, lease) as (outgoing, incoming):
                await outgoing.send(b"!")
                assert await incoming.receive() == b"last word"
                assert await incoming.receive() is None
            over = (await hear_until(lease, Unlinked))[-1]
            assert isinstance(over, Unlinked) and "process ended the ring" in over.reason


async def test_a_killed_process_is_told_and_ends_the_lease(tmp_path: Path):
    async with village(2) as place:
        hosting, landlord = holder(place[HOLDER], tmp_path, place.is_member)
        async with a_lease(place) as lease:
            await hear_until(lease, Ready)
            async with linked(place, lease) as (_, incoming):
                await hear_until(lease, Linked)
                os.kill(landlord.processes[0].child.pid, signal.SIGKILL)
                assert (await hear_until(lease, Lost))[-1] == Lost(reason="killed by SIGKILL")
                with pytest.raises(Unreachable, match="ended the lease"):
                    await lease.hear()
                assert await incoming.receive() is None
        await until(lambda: not hosting.holdings() and not landlord.taken)


@pytest.mark.parametrize("phase", ["fetching", "ready", "linked"])
async def test_a_leader_that_is_gone_leaves_nothing_behind(tmp_path: Path, phase: str):
    async with village(2) as place:
        hosting, landlord = holder(place[HOLDER], tmp_path, place.is_member)
        if phase == "fetching":
            landlord.fetching.clear()
        async with a_lease(place) as lease:
            await hear_until(lease, Fetching if phase == "fetching" else Ready)
            if phase == "linked":
                async with linked(place, lease):
                    await hear_until(lease, Linked)
                    pids = [process.child.pid for process in landlord.processes]
                    await place[LEADER].leave()
                    await until(lambda: not hosting.holdings())
                    assert not any(psutil.pid_exists(pid) for pid in pids)
            await place[LEADER].leave()
            await until(lambda: not hosting.holdings())
        assert (landlord.taken, landlord.files, landlord.processes) == (0, 0, [])
        assert place[HOLDER].errors == []


async def test_what_does_not_fit_is_declined_with_what_is_free(tmp_path: Path):
    async with village(2) as place:
        hosting, landlord = holder(place[HOLDER], tmp_path, place.is_member)
        async with a_lease(place, an_order(context=1_000_001)) as lease:
            declined = await lease.hear()
            assert declined == Declined(
                reason="layers 2-4 need 1000001 bytes. Stop something.", memory_bytes_free=1_000_000
            )
        assert landlord.taken == 0 and not hosting.holdings()


async def test_a_file_that_cannot_be_had_is_told(tmp_path: Path):
    async with village(2) as place:
        _, landlord = holder(place[HOLDER], tmp_path, place.is_member)
        landlord.failure = DownloadFailed("Nobody has it.")
        async with a_lease(place) as lease:
            assert (await hear_until(lease, Lost))[-1] == Lost(reason="Nobody has it.")
        await until(lambda: landlord.taken == 0)


async def test_a_node_holds_so_many_stages_and_no_more(tmp_path: Path):
    async with village(2) as place:
        hosting, landlord = holder(place[HOLDER], tmp_path, place.is_member)
        landlord.fetching.clear()
        async with asyncio.TaskGroup() as tasks:

            async def hold(over: asyncio.Event) -> None:
                async with a_lease(place) as lease:
                    await lease.hear()
                    await over.wait()

            over = asyncio.Event()
            for _ in range(LEASES_MAX):
                tasks.create_task(hold(over))
            await until(lambda: len(hosting.holdings()) == LEASES_MAX)
            async with a_lease(place) as lease:
                declined = await lease.hear()
                assert isinstance(declined, Declined) and "stages lie here already" in declined.reason
            over.set()
        await until(lambda: not hosting.holdings())


@pytest.mark.parametrize(
    "frame",
    [
        b"",
        b"\xc1",
        messages.encode(an_order()),
        messages.encode(Survey()),
        messages.encode(Accepted()),
        bytes(1 << 20),
    ],
)
async def test_nonsense_in_the_middle_of_a_lease_ends_it_and_is_counted(tmp_path: Path, frame: bytes):
    async with village(2) as place:
        hosting, landlord = holder(place[HOLDER], tmp_path, place.is_member)
        async with place[LEADER].stream(place[HOLDER].id, Kind.STAGE) as stream:
            await stream.send(messages.encode(an_order()))
            await stream.send(frame or b"\x80")
            await until(lambda: len(place[HOLDER].errors) == 1)
        await until(lambda: not hosting.holdings() and landlord.taken == 0 and not landlord.processes)


async def test_words_of_later_versions_are_passed_over(tmp_path: Path):
    async with village(2) as place:
        holder(place[HOLDER], tmp_path, place.is_member)
        async with place[LEADER].stream(place[HOLDER].id, Kind.STAGE) as stream:
            lease = Lease(stream, an_order())
            await stream.send(messages.encode(an_order()))
            await stream.send(b"\x81\xa2is\xa4move")
            await hear_until(lease, Ready)
            await lease.release()
            with pytest.raises(Unreachable, match="ended the lease"):
                await lease.hear()
        assert place[HOLDER].errors == []


async def test_of_many_links_only_the_newest_counts(tmp_path: Path):
    async with village(2) as place:
        hosting, _ = holder(place[HOLDER], tmp_path, place.is_member)
        async with a_lease(place) as lease:
            await hear_until(lease, Ready)
            place[LEADER].answers[Kind.RING] = RingDoor().answer
            for number in range(5000):
                await lease.link(a_link(number % 250))
            async with linked(place, lease, 251) as ring:
                assert await echoed(*ring, b"abc") == b"bcd"
            assert len(hosting.holdings()) == 1


# -- the ring's door -----------------------------------------------------------------------------------------


async def test_a_ring_is_let_in_from_the_node_that_the_leader_names_and_from_nobody_else(tmp_path: Path):
    async with village(3) as place:
        holder(place[HOLDER], tmp_path, place.is_member)
        session = bytes([1] * 16)
        hello = RingHello(ring=RING, session=session, stage=1)
        after = RingDoor()
        place[3].answers[Kind.RING] = after.answer
        async with (
            a_lease(place) as lease,
            after.expect(RingHello(ring=RING, session=session, stage=2), place[HOLDER].id),
        ):
            await hear_until(lease, Ready)
            await lease.link(a_link(1, following=bytes.fromhex(key(3).node), following_stage=2))
            with pytest.raises(Refused, match="Another node than you"):
                await comes(place[3], place[HOLDER], hello)
            async with ring_to(place[HOLDER].id, hello, place[LEADER].stream):
                await hear_until(lease, Linked)
                with pytest.raises(Refused, match="connected already"):
                    await comes(place[LEADER], place[HOLDER], hello)
            with pytest.raises(PeerError):
                await comes(place[LEADER], place[HOLDER], b"\xc1")


async def comes(villager: Villager, to: Villager, hello: RingHello | bytes) -> None:
    """And goes at once. Raises Refused; PeerError where that is what the other side thinks."""
    if isinstance(hello, RingHello):
        async with ring_to(to.id, hello, villager.stream):
            return
    async with villager.stream(to.id, Kind.RING) as stream:
        await stream.send(hello)
        await until(lambda: bool(to.errors))
        raise to.errors.pop()


async def test_a_stage_that_comes_before_the_leaders_word_waits_for_it(tmp_path: Path):
    async with village(2) as place:
        door = RingDoor()
        place[HOLDER].answers[Kind.RING] = door.answer
        hello = RingHello(ring=RING, session=bytes(16), stage=1)

        async def come() -> None:
            async with ring_to(place[HOLDER].id, hello, place[LEADER].stream) as stream:
                await stream.send(b"at last")
                await stream.finish()
                assert await stream.receive() is None

        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(come())
            await until(lambda: "1 waiting" in repr(door))
            async with door.expect(hello, place[LEADER].id) as arrived:
                incoming = await arrived
                assert await incoming.receive() == b"at last"
                await incoming.finish()
        assert repr(door) == "<RingDoor 0 expected, 0 waiting>"


# -- surveys -------------------------------------------------------------------------------------------------


async def test_a_survey_says_what_is_free_and_measures_what_was_never_measured(tmp_path: Path):
    async with village(4) as place:
        for number in (2, 3):
            holder(place[number], tmp_path / str(number), place.is_member)
        surveyor = Surveyor(place[LEADER], offering(lambda: pytest.fail("not asked")), place.is_member)
        stranger = key(77).node
        said = await surveyor.ask(place[2].id, [place[3].id, stranger, place[3].id])
        assert (said.memory_bytes_free, said.weights_bytes_per_second) == (1_000_000, 5e9)
        near, unknown, again = said.round_trips
        assert bytes_of([place[3].id, stranger]) == (near.node, unknown.node)
        assert near.seconds is not None and 0 < near.seconds < 5
        assert unknown.seconds is None and again == near
        assert (await surveyor.measure(place[2].id) or 0) > 0


# -- nothing is left behind ----------------------------------------------------------------------------------


async def test_two_hundred_leases_opened_and_broken_leave_nothing_behind(tmp_path: Path):
    async with village(2, seconds=100) as place:
        hosting, landlord = holder(place[HOLDER], tmp_path, place.is_member)
        await broken_lease(place, landlord, 0)
        await until(lambda: not hosting.holdings())
        tasks, files = len(asyncio.all_tasks()), psutil.Process().num_fds()
        children = psutil.Process().children()
        for number in range(200):
            await broken_lease(place, landlord, number)
        await until(lambda: not hosting.holdings() and place[HOLDER].open == 0)
        assert (landlord.taken, landlord.files, landlord.processes) == (0, 0, [])
        await until(lambda: len(asyncio.all_tasks()) <= tasks)
        assert psutil.Process().num_fds() <= files
        assert psutil.Process().children() == children


async def broken_lease(place: Village, landlord: ALandlord, number: int) -> None:
    """Broken at another moment each time."""
    landlord.fetching.set()
    if number % 4 == 0:
        landlord.fetching.clear()
    async with a_lease(place) as lease:
        match number % 8:
            case 1:
                await hear_until(lease, Ready)
            case 5:
                await hear_until(lease, Ready)
                async with linked(place, lease, number % 250 + 1) as ring:
                    assert await echoed(*ring, b"abc") == b"bcd"
            case 2:
                pass
            case _:
                await lease.hear()
