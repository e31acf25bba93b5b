"""Which sequences step next: waiting, prefill, decode, finished. Decides; `pipeline.py` acts.

A pure machine: `handle(event) -> effects`. It knows token ids and positions, and nothing of text, logits or
sockets; `caches.py` knows what is held where, `steps.py` what goes in and out. Orders hold through all of it:
every running request came before every waiting one, and a step's commands act before its rows on every stage,
so cells that a command frees are free for the rows of the same step, and what has been sent may be copied.
"""

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field

from mesh_llm.engine.head.caches import Beginning, Caches, common_length
from mesh_llm.engine.head.steps import (
    NOT_YET_UP,
    Cancel,
    Capacity,
    Effect,
    Event,
    Failed,
    Finished,
    Home,
    RingLost,
    RingUp,
    Row,
    Sampled,
    Send,
    Submit,
)

GROWTH_CELLS = 16
"""Left free for each running sequence when another is let in: else the newcomer is soon driven out again."""

FOLLOWED_MIN = 64
"""Tokens that two prompts have in common and nobody has computed yet: for so many the younger waits until the
older has."""


@dataclass(slots=True, eq=False)
class Sequence:
    """A request and where it stands. Positions below `issued` are cached or in flight."""

    request: int
    tokens: list[int]
    end: int
    """Length of `tokens` at which the answer is full."""
    may_reuse: bool = True
    place: int = -1
    """Its sequence id in the caches; -1 while it waits."""
    issued: int = 0
    life: int = 0
    """Grows when it is driven out: what was in flight for an older life is ignored."""
    cached: int = 0
    """Of the prompt, that its first life did not compute."""
    follows: "Sequence | None" = None
    """Who computes what both begin with; until then it has no rows itself."""
    shared: int = 0
    """How many tokens those are."""

    @property
    def pending(self) -> int:
        """Rows to be issued: 0 a result is awaited, 1 as in decode, more as in prefill."""
        return len(self.tokens) - self.issued

    @property
    def to_compute(self) -> int:
        """Rows that are still its own to issue."""
        return len(self.tokens) - max(self.issued, self.shared if self.follows else 0)

    def begin_at(self, position: int) -> None:
        """What is before it is cached."""
        self.issued, self.follows = position, None
        if self.life == 0:
            self.cached = position


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
        capacity = self._capacity
        self._caches = Caches(capacity.context, capacity.sequences, forgets=capacity.forgets)
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
        """After all that has been issued, and the commands that the next step brings. What is kept of those
        who have ended is among them."""
        return self._caches.used

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
        if len(self._waiting) >= self._capacity.waiting_max:
            return [Failed(submit.request, f"{len(self._waiting)} requests wait already, the most that may")]
        end = min(len(submit.tokens) + submit.tokens_max, self._capacity.context)
        self._waiting.append(Sequence(submit.request, list(submit.tokens), end, submit.may_reuse))
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
            return [Finished(sequence.request, "stop" if sampled.ends else "length", sequence.cached)]
        self._ready[sequence.request] = None
        return []

    def _forget(self, request: int) -> None:
        """What it has in the caches stays until it is needed; nothing stays of one that reuses nothing."""
        sequence = self._running.pop(request, None)
        if sequence is None:
            self._waiting = deque(waiting for waiting in self._waiting if waiting.request != request)
            return
        for other in self._running.values():
            if other.follows is sequence:
                self._catch_up(other, sequence)
        if sequence.may_reuse:
            self._caches.keep(sequence.place, sequence.tokens)
        else:
            self._caches.drop(sequence.place)
        self._leave(sequence)

    def _leave(self, sequence: Sequence) -> None:
        self._ready.pop(sequence.request, None)
        sequence.place, sequence.issued, sequence.follows = -1, 0, None
        sequence.life += 1

    def _catch_up(self, sequence: Sequence, leader: Sequence) -> None:
        """With as much as the other has sent: it will be cached before the next step's commands act."""
        count = min(sequence.shared, leader.issued)
        if count:
            self._caches.copy(leader.place, sequence.place, count)
        sequence.begin_at(count)

    def _send_steps(self) -> list[Effect]:
        sent: list[Effect] = []
        while self._down is None and len(self._flights) < self._capacity.steps_max:
            self._admit()
            self._end_waits_for_others()
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
        return Send(self._caches.take_commands(), tuple(row for _, row in draft.rows))

    def _admit(self) -> None:
        """The oldest first, and nobody past it: whoever waits is served in its turn."""
        while self._waiting and self._caches.has_place:
            sequence = self._waiting[0]
            kept = self._caches.find(sequence.tokens) if sequence.may_reuse else None
            leader = self._find_leader(sequence, 0 if kept is None else kept.tokens)
            kept = kept if leader is None else None
            if not self._fits(sequence, kept):
                return
            self._begin(self._waiting.popleft(), kept, leader)

    def _find_leader(self, sequence: Sequence, kept: int) -> Sequence | None:
        """Who runs and begins with more of its tokens than what is kept; `shared` says with how many."""
        sequence.shared, leader = 0, None
        for other in self._running.values() if sequence.may_reuse and not self._capacity.forgets else ():
            common = min(common_length(other.tokens, sequence.tokens), len(sequence.tokens) - 1)
            if common - other.issued < FOLLOWED_MIN:
                common = min(common, other.issued)
            if common > max(kept, sequence.shared):
                sequence.shared, leader = common, other
        return leader

    def _fits(self, sequence: Sequence, kept: Beginning | None) -> bool:
        """What is kept of others goes for it where it must."""
        begun = sequence.shared if kept is None else kept.tokens
        promised = sum(running.to_compute for running in self._running.values())
        growth = GROWTH_CELLS * len(self._running)
        return self._caches.make_free(promised + growth + len(sequence.tokens) - begun + 1, spared=kept)

    def _begin(self, sequence: Sequence, kept: Beginning | None, leader: Sequence | None) -> None:
        if kept is not None:
            sequence.place = self._caches.take_over(kept)
            sequence.begin_at(kept.tokens)
        else:
            sequence.place, sequence.follows = self._caches.take_place(), leader
        self._running[sequence.request] = sequence

    def _end_waits_for_others(self) -> None:
        for sequence in self._running.values():
            leader = sequence.follows
            if leader is not None and leader.issued >= sequence.shared:
                self._catch_up(sequence, leader)

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
        prefilling = [
            sequence
            for sequence in self._running.values()
            if sequence.pending > 1 and sequence.follows is None
        ]
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
        count = min(sequence.pending, rows)
        if not self._caches.make_free(count):
            count = self._caches.free
        if count > 0:
            self._issue(sequence, count, draft)
            draft.prefills = True

    def _issue(self, sequence: Sequence, count: int, draft: Draft) -> None:
        last = len(sequence.tokens) - 1
        for position in range(sequence.issued, sequence.issued + count):
            row = Row(sequence.place, position, sequence.tokens[position], position == last)
            draft.rows.append((sequence, row))
        sequence.issued += count
        self._caches.grow(sequence.place, count)
        self._ready.pop(sequence.request, None)

    def _make_room(self, sequence: Sequence, draft: Draft) -> bool:
        """One free cell for it, if need be by driving out the youngest. False: that was itself."""
        while sequence.place >= 0 and not self._caches.make_free(1):
            self._drive_out(next(reversed(self._running.values())), draft)
        return sequence.place >= 0

    def _drive_out(self, sequence: Sequence, draft: Draft) -> None:
        """Back to the head of the queue with all its tokens: they are computed again later."""
        del self._running[sequence.request]
        draft.without(sequence)
        self._caches.drop(sequence.place)
        self._leave(sequence)
        self._waiting.appendleft(sequence)
