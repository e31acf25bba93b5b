"""First come, first served: who may use a backend now, who waits, and when waiting makes no sense."""

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager

from mesh_llm.core.errors import Unavailable
from mesh_llm.core.limits import REQUESTS_WAITING_MAX

FULL_RETRY_AFTER_S = 5


class Line:
    """The line before one backend. A place is handed from who leaves to who waited longest."""

    def __init__(self, on_change: Callable[[], None], waiting_max: int = REQUESTS_WAITING_MAX) -> None:
        self._on_change = on_change
        self._waiting_max = waiting_max
        self._waiting: deque[asyncio.Future[None]] = deque()
        self.in_flight = 0

    @property
    def queued(self) -> int:
        return len(self._waiting)

    @asynccontextmanager
    async def place(self, places: int) -> AsyncGenerator[None]:
        """Holds one of `places`. Raises Unavailable when too many wait already."""
        await self._enter(places)
        self._on_change()
        try:
            yield
        finally:
            self._leave()
            self._on_change()

    async def _enter(self, places: int) -> None:
        if self.in_flight < places and not self._waiting:
            self.in_flight += 1
            return
        if len(self._waiting) >= self._waiting_max:
            raise Unavailable(
                f"{self.in_flight} requests are being answered and {len(self._waiting)} wait already. "
                f"Try again in {FULL_RETRY_AFTER_S} seconds.",
                retry_after_s=FULL_RETRY_AFTER_S,
            )
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append(turn)
        self._on_change()
        try:
            await turn
        except asyncio.CancelledError:
            self._give_up(turn)
            raise

    def _give_up(self, turn: asyncio.Future[None]) -> None:
        if not turn.cancelled():
            self._leave()  # its turn had just come: the place goes on to the next
        elif turn in self._waiting:  # else somebody's leaving has passed it over already
            self._waiting.remove(turn)
        self._on_change()

    def _leave(self) -> None:
        while self._waiting:
            turn = self._waiting.popleft()
            if not turn.done():
                turn.set_result(None)  # the place changes hands: in_flight stays
                return
        self.in_flight -= 1
