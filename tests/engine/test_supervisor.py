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
