"""An asyncio loop whose clock jumps to the next timer as soon as nothing is ready."""

import asyncio
import selectors
from collections.abc import Coroutine
from typing import Any


class _NoIO(selectors.SelectSelector):
    """Waiting costs no real time: it moves the loop's clock instead."""

    loop: "VirtualTimeLoop"

    def select(self, timeout: float | None = None) -> list[Any]:
        if timeout is None:
            raise DeadlockError("every task waits and no timer is set")
        self.loop.advance(timeout)
        return []


class DeadlockError(AssertionError):
    """The simulated program can never make progress again."""


class VirtualTimeLoop(asyncio.SelectorEventLoop):
    def __init__(self) -> None:
        selector = _NoIO()
        selector.loop = self
        self._now = 0.0
        super().__init__(selector)

    def time(self) -> float:
        return self._now

    def advance(self, seconds: float) -> None:
        self._now += seconds


def run_virtually(main: Coroutine[Any, Any, Any]) -> Any:
    with asyncio.Runner(loop_factory=VirtualTimeLoop) as runner:
        return runner.run(main)
