"""Which sequences step next: waiting, prefill, decode, finished. Decides; `pipeline.py` acts.

A pure machine: `handle(event) -> effects`. It knows token ids, positions and cells, and nothing of text,
logits or sockets. Orders hold through all of it: every running request came before every waiting one, and a
step's commands act before its rows on every stage, so cells that a command frees are free for the rows of
the same step.
"""

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from mesh_llm.engine.ring.frames import Command, Operation

GROWTH_CELLS = 16
"""Left free for each running sequence when another is let in: else the newcomer is soon driven out again."""

NOT_YET_UP = "the ring has not been up yet"


@dataclass(frozen=True, slots=True)
class Capacity:
    context: int
    """Cells of the KV cache that all sequences share, on every stage."""
    sequences: int
    batch: int
    """Rows of a step at most."""
    stages: int
    """Remote stages, 0 or more."""

    def __post_init__(self) -> None:
        if min(self.context, self.batch) < 2 or self.sequences < 1 or self.stages < 0:
            raise ValueError(f"{self} leaves no room to work: two cells, two rows and one sequence at least")

    @property
    def places(self) -> int:
        """Where a step may be computed: the remote stages and the head."""
        return self.stages + 1

    @property
    def steps_max(self) -> int:
        """In flight: one at every place, and one on the way so that nobody waits for a link."""
        return self.places + 1 if self.stages else 1

    def holds(self, prompt_tokens: int) -> bool:
        """Whether an answer can begin: llama-server's own bound (`n_tokens() >= slot.n_ctx` is refused)."""
        return 0 < prompt_tokens < self.context


@dataclass(frozen=True, slots=True)
class Submit:
    request: int
    """Drawn by the caller, never twice."""
    tokens: tuple[int, ...]
    tokens_max: int
    """Of the answer, 1 or more."""


@dataclass(frozen=True, slots=True)
class Cancel:
    request: int


@dataclass(frozen=True, slots=True)
class Sampled:
    token: int
    ends: bool
    """Whether the answer stops with it."""


@dataclass(frozen=True, slots=True)
class Home:
    """The oldest step in flight is home and computed to its end."""

    sampled: Mapping[int, Sampled]
    """Per request of `wanted()`."""


@dataclass(frozen=True, slots=True)
class RingUp:
    """All stages hold an empty cache."""


@dataclass(frozen=True, slots=True)
class RingLost:
    reason: str


Event = Submit | Cancel | Home | RingUp | RingLost


@dataclass(frozen=True, slots=True)
class Row:
    sequence: int
    position: int
    token: int
    sampled: bool
    """Whether its logits choose the next token."""


@dataclass(frozen=True, slots=True)
class Send:
    """The next step; it comes home after those before it."""

    commands: tuple[Command, ...]
    rows: tuple[Row, ...]


@dataclass(frozen=True, slots=True)
class Finished:
    request: int
    reason: Literal["stop", "length"]


@dataclass(frozen=True, slots=True)
class Failed:
    request: int
    reason: str


Effect = Send | Finished | Failed


@dataclass(slots=True, eq=False)
class Sequence:
    """A request and where it stands. Positions below `issued` are cached or in flight."""

    request: int
    tokens: list[int]
    end: int
    """Length of `tokens` at which the answer is full."""
    place: int = -1
    """Its sequence id in the caches; -1 while it waits."""
    issued: int = 0
    life: int = 0
    """Grows when it is driven out: what was in flight for an older life is ignored."""

    @property
    def pending(self) -> int:
        """Rows to be issued: 0 a result is awaited, 1 as in decode, more as in prefill."""
        return len(self.tokens) - self.issued


@dataclass(frozen=True, slots=True)
class Flight:
    """A step under way: whose logits it brings, and what kinds of rows it carries."""

    awaited: tuple[tuple[int, Sequence, int], ...]
    """(row, sequence, its life)"""
    decodes: bool
    prefills: bool


@dataclass(slots=True)
class Draft:
    """A step being put together."""

    rows: list[tuple[Sequence, Row]] = field(default_factory=list[tuple[Sequence, Row]])
    decodes: bool = False
    prefills: bool = False

    def without(self, sequence: Sequence) -> None:
        self.rows = [row for row in self.rows if row[0] is not sequence]


class Scheduler:
    def __init__(self, capacity: Capacity) -> None:
        self._capacity = capacity
        self._down: str | None = NOT_YET_UP
        self._clear()

    def _clear(self) -> None:
        self._waiting: deque[Sequence] = deque()
        self._running: dict[int, Sequence] = {}
        """By request, in order of arrival."""
        self._ready: dict[int, None] = {}
        """Requests in the order in which they last had a row at home."""
        self._free_places = list(reversed(range(self._capacity.sequences)))
        self._commands: list[Command] = []
        self._flights: deque[Flight] = deque()

    @property
    def busy(self) -> int:
        """Requests under way or waiting."""
        return len(self._waiting) + len(self._running)

    @property
    def steps_in_flight(self) -> int:
        return len(self._flights)

    @property
    def cells_used(self) -> int:
        """After all that has been issued, and the commands that the next step brings."""
        return sum(sequence.issued for sequence in self._running.values())

    def wanted(self) -> tuple[tuple[int, int], ...]:
        """(row, request) of the oldest step in flight: whose next token is to be sampled. A row of somebody
        cancelled or driven out is not among them, so that no sampler is asked twice for one token."""
        return tuple(
            (row, sequence.request)
            for row, sequence, life in self._flights[0].awaited
            if self._lives(sequence, life)
        )

    def handle(self, event: Event) -> list[Effect]:
        match event:
            case Submit():
                effects = self._submit(event)
            case Cancel(request):
                self._forget(request)
                effects = []
            case Home(sampled):
                effects = self._take_home(sampled)
            case RingUp():
                self._down = None
                effects = []
            case RingLost(reason):
                return self._lose(reason)
        return [*effects, *self._send_steps()]

    def _submit(self, submit: Submit) -> list[Effect]:
        if self._down is not None:
            return [Failed(submit.request, self._down)]
        if not self._capacity.holds(len(submit.tokens)):
            cells = self._capacity.context
            return [Failed(submit.request, f"{len(submit.tokens)} tokens do not fit a context of {cells}")]
        end = min(len(submit.tokens) + submit.tokens_max, self._capacity.context)
        self._waiting.append(Sequence(submit.request, list(submit.tokens), end))
        return []

    def _lose(self, reason: str) -> list[Effect]:
        self._down = reason
        lost: list[Effect] = [Failed(request, reason) for request in self._running]
        lost += [Failed(sequence.request, reason) for sequence in self._waiting]
        self._clear()
        return lost

    def _lives(self, sequence: Sequence, life: int) -> bool:
        return self._running.get(sequence.request) is sequence and sequence.life == life

    def _take_home(self, sampled: Mapping[int, Sampled]) -> list[Effect]:
        finished: list[Effect] = []
        flight = self._flights.popleft()
        for _, sequence, life in flight.awaited:
            if self._lives(sequence, life):
                finished += self._append(sequence, sampled[sequence.request])
        return finished

    def _append(self, sequence: Sequence, sampled: Sampled) -> list[Effect]:
        sequence.tokens.append(sampled.token)
        if sampled.ends or len(sequence.tokens) >= sequence.end:
            self._forget(sequence.request)
            return [Finished(sequence.request, "stop" if sampled.ends else "length")]
        self._ready[sequence.request] = None
        return []

    def _forget(self, request: int) -> None:
        sequence = self._running.pop(request, None)
        if sequence is not None:
            self._release(sequence)
        else:
            self._waiting = deque(waiting for waiting in self._waiting if waiting.request != request)

    def _release(self, sequence: Sequence) -> None:
        """Its cells and its place are free from the next step on.

        The place for the reuse of prefixes: what is dropped here could stay until `_admit` needs the cells,
        and a newcomer that begins alike could take it over.
        """
        self._commands.append(Command(Operation.DROP, sequence.place))
        self._free_places.append(sequence.place)
        self._ready.pop(sequence.request, None)
        sequence.place, sequence.issued = -1, 0
        sequence.life += 1

    def _send_steps(self) -> list[Effect]:
        sent: list[Effect] = []
        while self._down is None and len(self._flights) < self._capacity.steps_max:
            self._admit()
            if not any(sequence.pending for sequence in self._running.values()):
                break
            draft = Draft()
            self._add_decodes(draft)
            self._add_prefills(draft)
            if not draft.rows:
                break
            sent.append(self._send(draft))
        return sent

    def _send(self, draft: Draft) -> Send:
        awaited = tuple(
            (index, sequence, sequence.life)
            for index, (sequence, row) in enumerate(draft.rows)
            if row.sampled
        )
        self._flights.append(Flight(awaited, draft.decodes, draft.prefills))
        commands, self._commands = tuple(self._commands), []
        return Send(commands, tuple(row for _, row in draft.rows))

    def _admit(self) -> None:
        """The oldest first, and nobody past it: whoever waits is served in its turn."""
        while self._waiting and self._free_places:
            promised = sum(len(sequence.tokens) for sequence in self._running.values())
            growth = GROWTH_CELLS * len(self._running)
            if promised + growth + len(self._waiting[0].tokens) + 1 > self._capacity.context:
                return
            sequence = self._waiting.popleft()
            sequence.place = self._free_places.pop()
            self._running[sequence.request] = sequence

    def _add_decodes(self, draft: Draft) -> None:
        """The ready ones are spread over as many steps as there are places, so that all places work."""
        places = self._capacity.places
        if sum(flight.decodes for flight in self._flights) >= places:
            return
        decoding = [sequence for sequence in self._running.values() if sequence.pending <= 1]
        share = min(-(-len(decoding) // places), self._decodes_max(len(decoding)))
        chosen = {request for request, _ in zip(self._decodable(), range(share), strict=False)}
        for sequence in list(self._running.values()):  # the oldest first: only younger ones are driven out
            if sequence.request in chosen and self._make_room(sequence, draft):
                self._issue(sequence, 1, draft)
                draft.decodes = True

    def _decodable(self) -> list[int]:
        """Those with one row to issue: first who has waited longest, then who has never been at home."""
        ready = [request for request in self._ready if self._running[request].pending == 1]
        new = [
            request
            for request, sequence in self._running.items()
            if sequence.pending == 1 and request not in self._ready
        ]
        return ready + new

    def _decodes_max(self, decoding: int) -> int:
        """A quarter of a step stays free for prefill where somebody needs it."""
        batch = self._capacity.batch
        return batch - max(1, batch // 4) if decoding < len(self._running) else batch

    def _add_prefills(self, draft: Draft) -> None:
        """Half of what is free in the step goes to the oldest, so that it moves on; the rest to whoever is
        done soonest, so that short prompts need not wait for a long one."""
        decoding = any(sequence.pending <= 1 for sequence in self._running.values())
        steps_max = self._capacity.places if decoding else self._capacity.steps_max
        if sum(flight.prefills for flight in self._flights) >= steps_max:
            return
        prefilling = [sequence for sequence in self._running.values() if sequence.pending > 1]
        if not prefilling or not self._make_room(prefilling[0], draft):
            return
        oldest = prefilling[0]
        others = sorted(prefilling[1:], key=lambda sequence: sequence.pending)
        self._fill(oldest, (self._rows_left(draft) + 1) // 2 if others else self._rows_left(draft), draft)
        for sequence in [*others, oldest]:
            if sequence.place >= 0:
                self._fill(sequence, self._rows_left(draft), draft)

    def _rows_left(self, draft: Draft) -> int:
        return self._capacity.batch - len(draft.rows)

    def _fill(self, sequence: Sequence, rows: int, draft: Draft) -> None:
        free = self._capacity.context - self.cells_used
        count = min(sequence.pending, rows, free)
        if count > 0:
            self._issue(sequence, count, draft)
            draft.prefills = True

    def _issue(self, sequence: Sequence, count: int, draft: Draft) -> None:
        last = len(sequence.tokens) - 1
        for position in range(sequence.issued, sequence.issued + count):
            row = Row(sequence.place, position, sequence.tokens[position], position == last)
            draft.rows.append((sequence, row))
        sequence.issued += count
        self._ready.pop(sequence.request, None)

    def _make_room(self, sequence: Sequence, draft: Draft) -> bool:
        """One free cell for it, if need be by driving out the youngest. False: that was itself."""
        while sequence.place >= 0 and self.cells_used >= self._capacity.context:
            self._drive_out(next(reversed(self._running.values())), draft)
        return sequence.place >= 0

    def _drive_out(self, sequence: Sequence, draft: Draft) -> None:
        """Back to the head of the queue with all its tokens: they are computed again later."""
        del self._running[sequence.request]
        draft.without(sequence)
        self._release(sequence)
        self._waiting.appendleft(sequence)
