"""A discrete-event world: one clock, one seeded die, a network that can be broken in the usual ways."""

import heapq
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import count
from random import Random

TRACE_LINES = 30
CALM_AFTER_S = 10.0
"""After a disturbance: what it has set going may still end badly."""


@dataclass(frozen=True)
class NetworkConditions:
    """Seconds and probabilities. Each datagram draws its own latency, so that they overtake one another."""

    latency_min: float = 0.005
    latency_max: float = 0.1
    loss: float = 0.0
    duplication: float = 0.0


class World:
    def __init__(self, seed: int, conditions: NetworkConditions) -> None:
        self.seed = seed
        self.conditions = conditions
        self.now = 0.0
        self.chance = Random(seed)
        self.trace: list[str] = []
        self.changed = True
        """Whether something that a condition may wait for has happened since it was last looked at."""
        self._disturbed = -CALM_AFTER_S
        self._order = count()
        self._agenda: list[tuple[float, int, Callable[[], None]]] = []
        self._islands: dict[str, int] = {}
        self._cuts: set[tuple[str, str]] = set()

    # -- time ---------------------------------------------------------------------------------------------

    def after(self, seconds: float, what: Callable[[], None]) -> None:
        heapq.heappush(self._agenda, (self.now + seconds, next(self._order), what))

    def run_for(self, seconds: float) -> None:
        end = self.now + seconds
        while self._agenda and self._agenda[0][0] <= end:
            self._step()
        self.now = end

    def run_until(self, condition: Callable[[], bool], *, within: float) -> float:
        """Returns the seconds that it took."""
        start = self.now
        while not (self.changed and condition()):
            self.changed = False
            if not self._agenda or self._agenda[0][0] > start + within:
                self.fail(f"not reached within {within} s")
            self._step()
        return self.now - start

    def _step(self) -> None:
        self.now, _, what = heapq.heappop(self._agenda)
        what()

    # -- network ------------------------------------------------------------------------------------------

    def partition(self, *islands: Iterable[str]) -> None:
        self._islands = {name: place for place, island in enumerate(islands) for name in island}

    def cut(self, sender: str, to: str) -> None:
        """One way."""
        self._cuts.add((sender, to))

    def heal(self) -> None:
        self.disturb()
        self._islands = {}
        self._cuts = set()

    def set_conditions(self, conditions: NetworkConditions) -> None:
        self.disturb()
        self.conditions = conditions

    def disturb(self) -> None:
        self._disturbed = self.now

    def is_calm(self) -> bool:
        whole = not self._islands and not self._cuts
        quick = self.conditions.loss == 0 and self.conditions.latency_max < 0.3
        return whole and quick and self.now - self._disturbed >= CALM_AFTER_S

    def reaches(self, sender: str, to: str) -> bool:
        return (sender, to) not in self._cuts and self._islands.get(sender) == self._islands.get(to)

    def datagram(self, sender: str, to: str, arrive: Callable[[], None]) -> None:
        if not self.reaches(sender, to) or self.chance.random() < self.conditions.loss:
            return
        for _ in range(2 if self.chance.random() < self.conditions.duplication else 1):
            self.after(self._latency(), arrive)

    def stream(self, sender: str, to: str, arrive: Callable[[], None], broken: Callable[[], None]) -> None:
        """One message on a stream: late where datagrams are lost, broken off where nothing arrives."""
        if not (self.reaches(sender, to) and self.reaches(to, sender)):
            self.after(4.0, broken)
        else:
            again = 0.3 if self.chance.random() < self.conditions.loss else 0.0
            self.after(self._latency() + again, arrive)

    def _latency(self) -> float:
        return self.chance.uniform(self.conditions.latency_min, self.conditions.latency_max)

    # -- what is said when it goes wrong --------------------------------------------------------------------

    def note(self, line: str) -> None:
        self.trace.append(f"{self.now:9.3f} {line}")

    def fail(self, what: str) -> None:
        recent = "\n".join(self.trace[-TRACE_LINES:])
        raise AssertionError(f"seed={self.seed} at {self.now:.3f} s: {what}\n{recent}")
