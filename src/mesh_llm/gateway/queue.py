"""First come, first served: who may use a backend now, who waits, and when waiting makes no sense."""

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import asynccontextmanager

from mesh_llm.core.errors import Unavailable
from mesh_llm.core.limits import REQUESTS_WAITING_MAX
from mesh_llm.gateway.backend import Backend

FULL_RETRY_AFTER_S = 5


class Line:
    """The line before one backend. Places go to who has waited longest, as soon as enough are free."""

    def __init__(self, on_change: Callable[[], None], waiting_max: int = REQUESTS_WAITING_MAX) -> None:
        self._on_change = on_change
        self._waiting_max = waiting_max
        self._waiting: deque[tuple[asyncio.Future[None], int]] = deque()
        self._places = 0
        self._taken = 0
        self.in_flight = 0
        """Requests being answered; one that generates several answers takes several places."""

    @property
    def queued(self) -> int:
        return len(self._waiting)

    @property
    def busy(self) -> int:
        """Places taken and asked for."""
        return self._taken + sum(wanted for turn, wanted in self._waiting if not turn.done())

    @asynccontextmanager
    async def place(self, places: int, wanted: int = 1) -> AsyncGenerator[None]:
        """Holds `wanted` of `places`, or all of them. Raises Unavailable when too many wait already."""
        self._places = places
        wanted = min(wanted, places)
        await self._enter(wanted)
        self._on_change()
        try:
            yield
        finally:
            self._leave(wanted)
            self._on_change()

    async def _enter(self, wanted: int) -> None:
        if not self._waiting and self._taken + wanted <= self._places:
            self._take(wanted)
            return
        if len(self._waiting) >= self._waiting_max:
            raise Unavailable(
                f"{self.in_flight} requests are being answered and {len(self._waiting)} wait already. "
                f"Try again in {FULL_RETRY_AFTER_S} seconds.",
                retry_after_s=FULL_RETRY_AFTER_S,
            )
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((turn, wanted))
        self._on_change()
        try:
            await turn
        except asyncio.CancelledError:
            self._give_up(turn, wanted)
            raise

    def _give_up(self, turn: asyncio.Future[None], wanted: int) -> None:
        if turn.cancelled():
            self._admit()  # who stood behind may fit
        else:
            self._leave(wanted)  # its turn had just come
        self._on_change()

    def _take(self, wanted: int) -> None:
        self._taken += wanted
        self.in_flight += 1

    def _leave(self, wanted: int) -> None:
        self._taken -= wanted
        self.in_flight -= 1
        self._admit()

    def _admit(self) -> None:
        self._waiting = deque(waiter for waiter in self._waiting if not waiter[0].done())
        while self._waiting and self._taken + self._waiting[0][1] <= self._places:
            turn, wanted = self._waiting.popleft()
            self._take(wanted)
            turn.set_result(None)


class Lines:
    """The line before each backend. Those of backends that are gone are forgotten once they are empty."""

    def __init__(self, backends: Callable[[], Sequence[Backend]], on_change: Callable[[], None]) -> None:
        self._backends = backends
        self._on_change = on_change
        self._lines: dict[int, tuple[Backend, Line]] = {}

    def of(self, backend: Backend) -> Line:
        found = self._lines.get(id(backend))
        if found is None:
            self._forget()
            found = self._lines[id(backend)] = (backend, Line(self._on_change))
        return found[1]

    def before(self, model: str) -> list[Line]:
        """All lines for a model: two servers of one name may stand behind one node."""
        return [line for backend, line in self._lines.values() if backend.model.name == model]

    def _forget(self) -> None:
        known = {id(backend) for backend in self._backends()}
        self._lines = {
            key: (backend, line)
            for key, (backend, line) in self._lines.items()
            if key in known or line.busy or line.in_flight
        }
