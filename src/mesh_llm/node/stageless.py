"""The exact way of a mixture that cannot run in stages: there is none, and people are told why.

Stands where `splits.split_model.SplitModel` does for others; claims nothing and runs nothing.
"""

import asyncio
from collections.abc import Awaitable, Callable

from mesh_llm.core.serving import Condition, ServedModel, Stopped, Waiting
from mesh_llm.core.stages import SplitClaim
from mesh_llm.runtime.dropping import Droppable


class Stageless:
    """`node.undecided_mixture.Exactly`."""

    def __init__(self, model: ServedModel, because: str, on_change: Callable[[], None]) -> None:
        self.model = model
        self.condition: Condition = Waiting(because)
        self.claim: SplitClaim | None = None
        self._because = because
        self._on_change = on_change
        self._life = Droppable()

    async def run(self) -> None:
        """Until it is dropped."""
        await self._life.live(_for_ever(), name=f"life of {self.model.name}")

    async def drop(self, reason: str, until_unused: Callable[[], Awaitable[object]]) -> None:
        if not self._life.is_dropped:
            self._because = reason
            self.condition = Stopped()
            self._life.drop(until_unused, seconds_max=0)
            self._on_change()
        await self._life.wait_for_end()

    async def explain_failure(self) -> str:
        return self._because


async def _for_ever() -> None:
    await asyncio.Event().wait()
