import asyncio
import random

import pytest

from mesh_llm.core.errors import Unavailable
from mesh_llm.core.serving import Loading
from mesh_llm.gateway.queue import Line, Lines
from tests.gateway.engine import FixedBackend, a_model


def ignore() -> None:
    pass


async def test_those_who_wait_are_served_in_their_order():
    line, served, doors = Line(ignore), [], [asyncio.Event() for _ in range(5)]

    async def visit(number: int) -> None:
        async with line.place(1):
            served.append(number)
            await doors[number].wait()

    async with asyncio.TaskGroup() as tasks:
        visits = [tasks.create_task(visit(number)) for number in range(5)]
        await _settle()
        assert (line.in_flight, line.queued, served) == (1, 4, [0])
        for number in range(5):
            doors[number].set()
            await visits[number]
    assert served == [0, 1, 2, 3, 4]
    assert (line.in_flight, line.queued) == (0, 0)


async def _settle() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


async def test_one_too_many_is_told_to_come_back():
    line = Line(ignore, waiting_max=1)
    async with line.place(1), asyncio.TaskGroup() as tasks:

        async def visit() -> None:
            async with line.place(1):
                pass

        waiting = tasks.create_task(visit())
        await _settle()
        with pytest.raises(Unavailable, match="wait already") as refused:
            async with line.place(1):
                pass
        assert refused.value.retry_after_s > 0
        waiting.cancel()


async def test_who_leaves_while_waiting_frees_the_place_in_the_line():
    line = Line(ignore, waiting_max=1)

    async def visit() -> None:
        async with line.place(1):
            pass

    async with asyncio.TaskGroup() as tasks:
        async with line.place(1):
            leaving = tasks.create_task(visit())
            await _settle()
            leaving.cancel()
            await _settle()
            assert line.queued == 0
            staying = tasks.create_task(visit())
            await _settle()
        await staying


async def test_who_is_cancelled_just_as_the_turn_comes_passes_it_on():
    line, served = Line(ignore), []

    async def visit(name: str) -> None:
        async with line.place(1):
            served.append(name)

    async with asyncio.TaskGroup() as tasks:
        async with line.place(1):
            first = tasks.create_task(visit("first"))
            second = tasks.create_task(visit("second"))
            await _settle()
        first.cancel()  # its turn has come, but it has not run since
        await second
    assert served == ["second"]
    assert line.in_flight == 0


async def test_several_answers_take_several_places_and_nobody_overtakes():
    line, served = Line(ignore), []

    async def visit(name: str, wanted: int) -> None:
        async with line.place(4, wanted):
            served.append(name)

    async with asyncio.TaskGroup() as tasks:
        async with line.place(4, 2):
            wide = tasks.create_task(visit("wide", 9))  # more than there are: all of them
            narrow = tasks.create_task(visit("narrow", 1))
            await _settle()
            assert (served, line.in_flight, line.queued) == ([], 1, 2)
            wide.cancel()
            await narrow
            assert served == ["narrow"]
        last = tasks.create_task(visit("last", 9))
        await last
    assert served == ["narrow", "last"]
    assert (line.in_flight, line.queued) == (0, 0)


@pytest.mark.parametrize("seed", range(20))
async def test_no_place_is_lost_or_doubled_whoever_leaves_when(seed):
    chance, line, inside, most = random.Random(seed), Line(ignore, waiting_max=100), 0, 0

    async def visit() -> None:
        nonlocal inside, most
        wanted = chance.randrange(1, 4)
        async with line.place(3, wanted):
            inside += wanted
            most = max(most, inside)
            try:
                for _ in range(chance.randrange(5)):
                    await asyncio.sleep(0)
            finally:
                inside -= wanted

    async with asyncio.TaskGroup() as tasks:
        visits = []
        for _ in range(60):
            visits.append(tasks.create_task(visit()))
            await asyncio.sleep(0)
            if chance.random() < 0.4:
                chance.choice(visits).cancel()
    assert most <= 3
    assert (line.in_flight, line.queued) == (0, 0)


async def test_a_line_knows_how_busy_its_backend_is():
    line = Line(ignore)
    async with line.place(4, wanted=3), asyncio.TaskGroup() as tasks:

        async def visit() -> None:
            async with line.place(4, wanted=2):
                pass

        waiting = tasks.create_task(visit())
        await _settle()
        assert line.busy == 5
        waiting.cancel()
        await _settle()
        assert line.busy == 3
    assert line.busy == 0


async def test_the_lines_of_backends_that_are_gone_are_forgotten_once_they_are_empty():
    backends = [FixedBackend(a_model(str(number)), Loading(0)) for number in range(3)]
    known = list(backends)
    lines = Lines(lambda: known, ignore)
    first = lines.of(backends[0])
    async with first.place(1):
        assert lines.of(backends[1]) is lines.of(backends[1])
        known[:] = backends[2:]
        lines.of(backends[2])
        assert lines.before("0") == [first]
        assert lines.before("1") == []
    assert lines.of(backends[0]) is first
