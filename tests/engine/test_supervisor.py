"""The supervisor with engines that do as they are told, and with a real one that is killed."""

import asyncio
import os
import signal
from collections.abc import Callable
from contextlib import asynccontextmanager
from functools import partial

import psutil
import pytest

from mesh_llm.core.errors import EngineFailed
from mesh_llm.core.progress import ignore
from mesh_llm.core.serving import Condition, Endpoint, Failed, Loading, Ready, Restarting, Stopped
from mesh_llm.engine.supervisor import Supervisor
from mesh_llm.engine.whole.llama_server import LlamaServer
from mesh_llm.runtime.clock import Clock
from mesh_llm.runtime.tasks import beside
from tests.engine.served_model_for_tests import served
from tests.engine.settings_for_tests import settings_for


class ScriptedEngine:
    """Loads unless told to fail, then runs until `break_down` is called."""

    def __init__(self, refuses: str | None = None) -> None:
        self._refuses = refuses
        self._end: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    async def wait_until_ready(self) -> Endpoint:
        if self._refuses is not None:
            raise EngineFailed(self._refuses)
        return Endpoint("http://127.0.0.1:1", "key")

    async def wait_for_end(self) -> str:
        return await self._end

    def break_down(self, reason: str) -> None:
        self._end.set_result(reason)


class Workshop:
    """A launcher that remembers what it launched."""

    def __init__(self, refuses: str | None = None) -> None:
        self._refuses = refuses
        self.engines: list[ScriptedEngine] = []
        self.open = 0

    @asynccontextmanager
    async def __call__(self, on_loaded: Callable[[float], None]):
        on_loaded(0.5)
        self.engines.append(ScriptedEngine(self._refuses))
        self.open += 1
        try:
            yield self.engines[-1]
        finally:
            self.open -= 1


class ImpatientClock(Clock):
    """Says that a minute has passed at each look, so that every stretch of health forgives."""

    def __init__(self) -> None:
        self._now = 0.0

    def monotonic(self) -> float:
        self._now += 60.0
        return self._now


async def wait_for(supervisor: Supervisor, kind: type[Condition]) -> Condition:
    async with asyncio.timeout(60):
        while not isinstance(supervisor.condition, kind):
            await supervisor.wait_for_change()
    return supervisor.condition


def supervise(launch, clock: Clock | None = None, seen: list[Condition] | None = None) -> Supervisor:
    def note() -> None:
        if seen is not None:
            seen.append(supervisor.condition)

    supervisor = Supervisor(served(), launch, clock or Clock(), ignore, note)
    return supervisor


async def test_a_model_loads_with_progress_and_is_ready():
    seen: list[Condition] = []
    supervisor = supervise(Workshop(), seen=seen)
    async with beside(run=supervisor.run()):
        await wait_for(supervisor, Ready)
    assert [type(c) for c in seen] == [Loading, Loading, Ready, Stopped]
    assert Loading(0.5) in seen


async def test_an_engine_that_breaks_is_started_again_and_the_reason_kept():
    workshop, seen = Workshop(), list[Condition]()
    supervisor = supervise(workshop, ImpatientClock(), seen)
    async with beside(run=supervisor.run()):
        await wait_for(supervisor, Ready)
        workshop.engines[0].break_down("killed by SIGSEGV")
        assert await supervisor.explain_failure() == "killed by SIGSEGV"
        await wait_for(supervisor, Ready)
    assert Restarting("killed by SIGSEGV", attempt=1, retry_after_s=1) in seen
    assert len(workshop.engines) == 2 and workshop.open == 0


async def test_a_model_that_fails_three_times_is_given_up():
    workshop = Workshop(refuses="unknown architecture")
    supervisor = supervise(workshop)
    async with asyncio.timeout(60):
        await supervisor.run()
    assert supervisor.condition == Failed("failed 3 times, last with unknown architecture")
    assert len(workshop.engines) == 3 and workshop.open == 0


async def test_an_engine_that_seems_well_is_not_blamed_with_a_guess():
    supervisor = supervise(Workshop())
    async with beside(run=supervisor.run()):
        await wait_for(supervisor, Ready)
        assert await supervisor.explain_failure() == "it broke off the answer without a word"


async def at_once() -> None:
    """Nobody uses the model."""


async def test_a_dropped_model_ends_for_good_and_run_returns():
    workshop, seen = Workshop(), list[Condition]()
    supervisor = supervise(workshop, seen=seen)
    async with asyncio.timeout(60), asyncio.TaskGroup() as tasks:
        running = tasks.create_task(supervisor.run())
        await wait_for(supervisor, Ready)
        await supervisor.drop("it was dropped", at_once)
        await running
        await supervisor.drop("again", at_once)  # no harm
    assert workshop.open == 0 and len(workshop.engines) == 1
    assert supervisor.condition == Stopped() and seen.count(Stopped()) == 1


async def test_who_is_being_answered_when_a_model_is_dropped_is_let_finish():
    workshop, last_answer = Workshop(), asyncio.Event()
    supervisor = supervise(workshop)
    async with asyncio.timeout(60), asyncio.TaskGroup() as tasks:
        tasks.create_task(supervisor.run())
        await wait_for(supervisor, Ready)
        drop = tasks.create_task(supervisor.drop("it was dropped", last_answer.wait))
        await supervisor.wait_for_change()
        assert supervisor.condition == Stopped() and workshop.open == 1
        last_answer.set()
        await drop
    assert workshop.open == 0


async def test_an_answer_that_does_not_end_is_broken_off_and_told_why():
    supervisor = supervise(Workshop())
    async with asyncio.timeout(60), asyncio.TaskGroup() as tasks:
        tasks.create_task(supervisor.run())
        await wait_for(supervisor, Ready)
        await supervisor.drop("it was dropped", asyncio.Event().wait, seconds_max=0.01)
        assert await supervisor.explain_failure() == "it was dropped"


async def test_a_drop_goes_on_when_whoever_asked_for_it_leaves():
    workshop, last_answer = Workshop(), asyncio.Event()
    supervisor = supervise(workshop)
    async with asyncio.timeout(60), asyncio.TaskGroup() as tasks:
        running = tasks.create_task(supervisor.run())
        await wait_for(supervisor, Ready)
        async with beside(drop=supervisor.drop("it was dropped", last_answer.wait)):
            await supervisor.wait_for_change()
        last_answer.set()
        await running
    assert workshop.open == 0 and supervisor.condition == Stopped()


async def test_a_model_that_is_loading_or_restarting_can_be_dropped():
    loading = supervise(Workshop())
    restarting = supervise(Workshop(refuses="no"))
    async with asyncio.timeout(60), asyncio.TaskGroup() as tasks:
        for supervisor in (loading, restarting):
            tasks.create_task(supervisor.run())
        await loading.drop("it was dropped", at_once)
        await wait_for(restarting, Restarting)
        await restarting.drop("it was dropped", at_once)
    assert loading.condition == restarting.condition == Stopped()


async def test_an_engine_that_breaks_while_it_is_dropped_is_not_started_again():
    workshop = Workshop()
    supervisor = supervise(workshop)
    async with asyncio.timeout(60), asyncio.TaskGroup() as tasks:
        running = tasks.create_task(supervisor.run())
        await wait_for(supervisor, Ready)
        tasks.create_task(supervisor.drop("it was dropped", asyncio.Event().wait))
        await supervisor.wait_for_change()
        workshop.engines[0].break_down("killed by SIGSEGV")
        await running
    assert len(workshop.engines) == 1 and supervisor.condition == Stopped()


async def test_a_model_that_was_given_up_can_be_dropped_too():
    supervisor = supervise(Workshop(refuses="no"))
    async with asyncio.timeout(60):
        await supervisor.run()
        await supervisor.drop("it was dropped", at_once)
    assert supervisor.condition == Stopped()


@pytest.mark.real
async def test_a_real_engine_that_is_killed_comes_back_as_a_new_process(smollm2):
    supervisor = supervise(partial(LlamaServer.start, settings_for(smollm2), os.environ))
    before = set(psutil.Process().children())
    async with beside(run=supervisor.run()):
        first = await wait_for(supervisor, Ready)
        (engine,) = set(psutil.Process().children()) - before
        os.kill(engine.pid, signal.SIGKILL)
        assert await supervisor.explain_failure() == "killed by SIGKILL"
        second = await wait_for(supervisor, Ready)
    assert first != second
    assert set(psutil.Process().children()) <= before


@pytest.mark.real
async def test_a_real_engine_is_gone_when_its_model_has_been_dropped(smollm2):
    supervisor = supervise(partial(LlamaServer.start, settings_for(smollm2), os.environ))
    before = set(psutil.Process().children())
    async with asyncio.timeout(60), asyncio.TaskGroup() as tasks:
        tasks.create_task(supervisor.run())
        await wait_for(supervisor, Ready)
        await supervisor.drop("it was dropped", at_once)
        assert set(psutil.Process().children()) <= before
