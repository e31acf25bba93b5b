"""A life that may be ended from outside: once nobody uses it any more, or a bound has passed."""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import suppress
from functools import partial

from mesh_llm.runtime.tasks import unwrapped

UntilUnused = Callable[[], Awaitable[object]]
"""Returns when nobody uses it any more."""


async def bounded(until_unused: UntilUnused, seconds_max: float) -> None:
    with suppress(TimeoutError):
        async with asyncio.timeout(seconds_max):
            await until_unused()


class Droppable:
    def __init__(self) -> None:
        self._until_unused: UntilUnused | None = None
        self._is_dropped = asyncio.Event()
        self._has_ended = asyncio.Event()

    @property
    def is_dropped(self) -> bool:
        return self._is_dropped.is_set()

    async def live(self, life: Coroutine[None, None, None], name: str) -> None:
        """Until `life` returns or is dropped; cancelling ends it at once. Once only."""
        try:
            with unwrapped():
                async with asyncio.TaskGroup() as tasks:
                    living = tasks.create_task(life, name=name)
                    ending = tasks.create_task(self._end_when_dropped(living))
                    living.add_done_callback(lambda _: ending.cancel())
        finally:
            self._has_ended.set()

    def drop(self, until_unused: UntilUnused, seconds_max: float) -> None:
        """Ends when `until_unused` returns, at the latest after so long, also if the caller is cancelled."""
        self._until_unused = partial(bounded, until_unused, seconds_max)
        self._is_dropped.set()

    async def wait_for_end(self) -> None:
        """Of `live`, which must be running or have ended."""
        await self._has_ended.wait()

    async def _end_when_dropped(self, living: "asyncio.Task[None]") -> None:
        await self._is_dropped.wait()
        assert self._until_unused is not None
        await self._until_unused()
        living.cancel()
