"""A ring of fake stages that remember what they were told; the next token is a hash of the prefix.

Each stage applies commands and rows in order and refuses what llama.cpp would: a sequence that does not go on
where it stopped, a cache that is full. So a wrong command shows as an error or as a wrong token.
"""

import zlib
from collections import deque
from dataclasses import dataclass, field

from mesh_llm.engine.head.scheduler import (
    Cancel,
    Capacity,
    Effect,
    Event,
    Failed,
    Finished,
    Home,
    RingLost,
    RingUp,
    Sampled,
    Scheduler,
    Send,
    Submit,
)
from mesh_llm.engine.ring.frames import Operation

END = 0
"""The token that ends an answer."""

VOCABULARY = 61


def next_token(prefix: tuple[int, ...]) -> int:
    return zlib.crc32(repr(prefix).encode()) % VOCABULARY


def answer_alone(prompt: tuple[int, ...], tokens_max: int, context: int) -> list[int]:
    """What a request gets that has the model for itself."""
    answer: list[int] = []
    while len(answer) < tokens_max and len(prompt) + len(answer) < context:
        answer.append(next_token((*prompt, *answer)))
        if answer[-1] == END:
            break
    return answer


@dataclass
class Cache:
    """Of one stage."""

    cells: int
    sequences: dict[int, list[int]] = field(default_factory=dict)

    def take(self, step: Send) -> list[int]:
        """The next token after each row."""
        for command in step.commands:
            assert (command.operation, command.first, command.end) == (Operation.DROP, 0, -1)
            self.sequences.pop(command.sequence, None)
        tokens: list[int] = []
        for row in step.rows:
            held = self.sequences.setdefault(row.sequence, [])
            assert row.position == len(held), f"{row} does not go on after {len(held)}"
            held.append(row.token)
            tokens.append(next_token(tuple(held)))
        assert sum(map(len, self.sequences.values())) <= self.cells, "the cache is full"
        return tokens


class FakeRing:
    """Feeds a scheduler and performs its effects; steps come home when `come_home` says so."""

    def __init__(self, capacity: Capacity) -> None:
        self.capacity = capacity
        self.scheduler = Scheduler(capacity)
        self.answers: dict[int, list[int]] = {}
        self.ended: dict[int, str] = {}
        self.failed: dict[int, str] = {}
        self.steps: list[Send] = []
        self._cache = Cache(capacity.context)
        self._flying: deque[tuple[Send, list[int]]] = deque()
        self.up()

    def up(self) -> None:
        self._cache = Cache(self.capacity.context)
        self._handle(RingUp())

    def lose(self, reason: str) -> None:
        self._flying.clear()
        self._handle(RingLost(reason))

    def submit(self, request: int, prompt: tuple[int, ...], tokens_max: int) -> None:
        self.answers[request] = []
        self._handle(Submit(request, prompt, tokens_max))

    def cancel(self, request: int) -> None:
        self._handle(Cancel(request))

    @property
    def flying(self) -> int:
        return len(self._flying)

    def come_home(self) -> None:
        step, tokens = self._flying.popleft()
        sampled: dict[int, Sampled] = {}
        for index, request in self.scheduler.wanted():
            assert step.rows[index].sampled
            self.answers[request].append(tokens[index])
            sampled[request] = Sampled(tokens[index], tokens[index] == END)
        self._handle(Home(sampled))

    def run_to_the_end(self, steps_max: int = 20_000) -> None:
        for _ in range(steps_max):
            if not self._flying:
                return
            self.come_home()
        raise AssertionError("it does not come to an end")

    def _handle(self, event: Event) -> None:
        for effect in self.scheduler.handle(event):
            self._perform(effect)
        assert self.scheduler.steps_in_flight == len(self._flying) <= self.capacity.steps_max
        assert self.scheduler.cells_used <= self.capacity.context

    def _perform(self, effect: Effect) -> None:
        match effect:
            case Send():
                assert 0 < len(effect.rows) <= self.capacity.batch
                self.steps.append(effect)
                self._flying.append((effect, self._cache.take(effect)))
            case Finished(request, reason):
                self.ended[request] = reason
            case Failed(request, reason):
                self.failed[request] = reason
