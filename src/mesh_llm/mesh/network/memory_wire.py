"""One direction between two nodes in memory: what must arrive does so in order, what may get lost may.

It outlasts a cut by trying again, as a transport's retransmission does, and ends with its connection.
"""

import asyncio
from collections import deque
from collections.abc import Callable
from random import Random
from typing import Protocol

from mesh_llm.runtime.bell import Bell

RETRY_SECONDS = 0.2
"""While nothing passes. QUIC begins alike and then backs off."""


class Weather(Protocol):
    """What the network does to packets at the moment."""

    chance: Random
    latency_s: tuple[float, float]
    datagram_loss: float


class Wire:
    def __init__(self, weather: Weather, passes: Callable[[], bool]) -> None:
        self._weather = weather
        self._passes = passes
        self._on_its_way: deque[tuple[float, Callable[[], None]]] = deque()
        self._timer: asyncio.TimerHandle | None = None
        self._emptied = Bell()

    def send(self, arrive: Callable[[], None]) -> None:
        """`arrive` is called at the other end, later, after all that was sent before."""
        due = asyncio.get_running_loop().time() + self._latency()
        if self._on_its_way:
            due = max(due, self._on_its_way[-1][0])
        self._on_its_way.append((due, arrive))
        if self._timer is None:
            self._wake_at(due)

    def toss(self, arrive: Callable[[], None]) -> None:
        """`arrive` is called at the other end, once or never."""
        if self._weather.chance.random() >= self._weather.datagram_loss:
            asyncio.get_running_loop().call_later(self._latency(), self._arrive_if_it_passes, arrive)

    async def wait_empty(self) -> None:
        while self._on_its_way:
            await self._emptied.wait_for_ring()

    def stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._on_its_way.clear()
        self._emptied.ring()

    def _latency(self) -> float:
        return self._weather.chance.uniform(*self._weather.latency_s)

    def _wake_at(self, due: float) -> None:
        self._timer = asyncio.get_running_loop().call_at(due, self._deliver)

    def _deliver(self) -> None:
        self._timer = None
        now = asyncio.get_running_loop().time()
        if not self._passes():
            self._wake_at(now + RETRY_SECONDS)
            return
        while self._on_its_way and self._on_its_way[0][0] <= now:
            self._on_its_way.popleft()[1]()
        if self._on_its_way:
            self._wake_at(self._on_its_way[0][0])
        else:
            self._emptied.ring()

    def _arrive_if_it_passes(self, arrive: Callable[[], None]) -> None:
        if self._passes():
            arrive()
