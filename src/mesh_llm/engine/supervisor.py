"""The life of one model on this node: started, watched, restarted with a reason, given up, stopped.

To the gateway it is a backend: what it serves (`model`), how it is doing (`condition`), why it broke.
"""

import asyncio
import contextlib
import logging
from collections.abc import Callable
from typing import Protocol

from mesh_llm.core.errors import EngineFailed
from mesh_llm.core.progress import Progress, Report
from mesh_llm.core.serving import (
    Condition,
    Endpoint,
    Failed,
    Loading,
    Ready,
    Restarting,
    ServedModel,
    Stopped,
)
from mesh_llm.engine.restart import FailureHistory, GiveUp, Retry
from mesh_llm.runtime.bell import Bell
from mesh_llm.runtime.clock import Clock
from mesh_llm.runtime.dropping import Droppable, UntilUnused

logger = logging.getLogger(__name__)

EXPLANATION_WAIT_S = 2.0
"""From a broken answer to the engine's exit being seen; the kernel tells within milliseconds."""


DROP_SECONDS_MAX = 30.0
"""For answers under way when a model is dropped; as long as a node that stops lets them finish."""


class Engine(Protocol):
    """A running child that computes; `LlamaServer` with its settings bound is one."""

    async def wait_until_ready(self) -> Endpoint: ...

    async def wait_for_end(self) -> str: ...


class Launcher(Protocol):
    def __call__(
        self, on_loaded: Callable[[float], None], /
    ) -> contextlib.AbstractAsyncContextManager[Engine]: ...


class Supervisor:
    def __init__(
        self,
        model: ServedModel,
        launch: Launcher,
        clock: Clock,
        report: Report,
        on_change: Callable[[], None],
    ) -> None:
        """`report` is told how far a load is, `on_change` that `condition` has become another."""
        self.model = model
        self.condition: Condition = Loading(0.0)
        self._launch = launch
        self._clock = clock
        self._report = report
        self._on_change = on_change
        self._changed = Bell()
        self._last_end = "it broke off the answer without a word"
        self._life = Droppable()

    def __repr__(self) -> str:
        return f"<Supervisor {self.model.name} {self.condition}>"

    async def run(self) -> None:
        """Until the model is given up or dropped; cancelling stops the child."""
        try:
            await self._life.live(self._live(), name=f"life of {self.model.name}")
        except asyncio.CancelledError:
            self._become(Stopped())
            raise

    async def drop(
        self,
        reason: str,
        until_unused: UntilUnused,
        seconds_max: float = DROP_SECONDS_MAX,
    ) -> None:
        """Unloads the model for good; returns when `run` has, which must be running or have ended.

        Nobody new is served from now on. The child ends when `until_unused` returns, at the latest after
        `seconds_max`; an answer that it breaks off is told `reason`. It ends so even if this is cancelled.
        """
        if not self._life.is_dropped:
            self._last_end = reason
            self._become(Stopped())
            self._life.drop(until_unused, seconds_max)
        await self._life.wait_for_end()

    async def _live(self) -> None:
        history = FailureHistory()
        while not self._life.is_dropped:
            reason, ready_s = await self._live_once()
            if self._life.is_dropped:
                return
            history = history.after_failure(ready_s)
            self._last_end = reason
            match history.decide():
                case GiveUp(failures):
                    logger.error("%s has failed %d times: %s", self.model.name, failures, reason)
                    self._become(Failed(f"failed {failures} times, last with {reason}"))
                    return
                case Retry(after_s, attempt):
                    logger.warning("%s: the engine ended (%s), starting again", self.model.name, reason)
                    self._become(Restarting(reason, attempt, retry_after_s=max(1, round(after_s))))
                    await asyncio.sleep(after_s)

    async def wait_for_change(self) -> None:
        """Returns when `condition` has changed since the call."""
        await self._changed.wait_for_ring()

    async def explain_failure(self) -> str:
        """Why the engine broke off an answer: waits until its end has been seen, but not for long."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(EXPLANATION_WAIT_S):
                while isinstance(self.condition, Ready):
                    await self.wait_for_change()
        return self._last_end

    async def _live_once(self) -> tuple[str, float]:
        """One life of the engine. Returns why it ended and how many seconds it had been ready."""
        self._become(Loading(0.0))
        try:
            async with self._launch(self._show_progress) as engine:
                endpoint = await engine.wait_until_ready()
                self._become(Ready(endpoint))
                logger.info("%s is ready", self.model.name)
                since = self._clock.monotonic()
                reason = await engine.wait_for_end()
                return reason, self._clock.monotonic() - since
        except EngineFailed as failure:
            return str(failure), 0.0

    def _show_progress(self, fraction: float) -> None:
        total = self.model.facts.weights_bytes
        self._report(Progress("load", self.model.name, round(fraction * total), total))
        self._become(Loading(fraction))

    def _become(self, condition: Condition) -> None:
        if self._life.is_dropped:
            return  # what is dropped stays so, whatever its engine still does
        self.condition = condition
        self._changed.ring()
        self._on_change()
