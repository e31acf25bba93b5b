"""A ring of fake stages that remember what they were told; the next token is a hash of the prefix.

Each stage applies commands and rows in order and refuses what llama.cpp would: a sequence that does not go on
where it stopped, a cache that is full. So a wrong command shows as an error or as a wrong token.
"""

import zlib
from collections import deque
from dataclasses import dataclass, field

from mesh_llm.engine.head.scheduler import Scheduler
from mesh_llm.engine.head.steps import (
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
    Send,
    Submit,
)
from mesh_llm.engine.ring.frames import Command, Operation

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


@dataclass(eq=False)
class Cell:
    """Equal to itself only: several sequences may own it."""

    token: int


@dataclass
class Cache:
    """Of one stage. One that forgets is given no copies and no cuts."""

    cells: int
    forgets: bool
    sequences: dict[int, list[Cell]] = field(default_factory=dict)

    def take(self, step: Send) -> list[int]:
        """The next token after each row."""
        for command in step.commands:
            self._obey(command)
        tokens: list[int] = []
        for row in step.rows:
            held = self.sequences.setdefault(row.sequence, [])
            assert row.position == len(held), f"{row} does not go on after {len(held)}"
            held.append(Cell(row.token))
            tokens.append(next_token(tuple(cell.token for cell in held)))
        assert self.used <= self.cells, "the cache is full"
        return tokens

    @property
    def used(self) -> int:
        return len({cell for held in self.sequences.values() for cell in held})

    def _obey(self, command: Command) -> None:
        held = self.sequences.get(command.sequence, [])
        if command.operation is Operation.DROP:
            assert command.end == -1 and command.first < len(held), f"{command} drops nothing"
            assert not (self.forgets and command.first)
            del held[command.first :]
        else:
            assert command.operation is Operation.COPY and not self.forgets
            assert command.first == 0 < command.end <= len(held), f"{command} copies what is not there"
            assert not self.sequences.get(command.target), f"{command} does not begin its target"
            self.sequences[command.target] = held[: command.end]


class FakeRing:
    """Feeds a scheduler and performs its effects; steps come home when `come_home` says so."""

    def __init__(self, capacity: Capacity) -> None:
        self.capacity = capacity
        self.scheduler = Scheduler(capacity)
        self.answers: dict[int, list[int]] = {}
        self.ended: dict[int, str] = {}
        self.cached: dict[int, int] = {}
        self.failed: dict[int, str] = {}
        self.steps: list[Send] = []
        self._cache = Cache(capacity.context, capacity.forgets)
        self._flying: deque[tuple[Send, list[int]]] = deque()
        self.up()

    def up(self) -> None:
        self._cache = Cache(self.capacity.context, self.capacity.forgets)
        self._handle(RingUp())

    def lose(self, reason: str) -> None:
        self._flying.clear()
        self._handle(RingLost(reason))

    def submit(
        self, request: int, prompt: tuple[int, ...], tokens_max: int, *, may_reuse: bool = True
    ) -> None:
        self.answers[request] = []
        self._handle(Submit(request, prompt, tokens_max, may_reuse))

    def cancel(self, request: int) -> None:
        self._handle(Cancel(request))

    @property
    def cells_used(self) -> int:
        """Of a stage, by what it has been sent."""
        return self._cache.used

    @property
    def rows(self) -> int:
        """That have been sent so far."""
        return sum(len(step.rows) for step in self.steps)

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
            case Finished(request, reason, cached):
                self.ended[request] = reason
                self.cached[request] = cached
            case Failed(request, reason):
                self.failed[request] = reason
