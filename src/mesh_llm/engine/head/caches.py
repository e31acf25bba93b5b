"""What every stage's KV cache holds of each sequence, and what stays there when an answer has ended.

As of all commands and rows that have been decided; the stages follow in the same order. Counterpart: the
unified llama_kv_cache of llama.cpp, where a copied prefix takes no cells of its own (`seq_cp`). A place is a
sequence id. It is free, somebody's, or kept: nobody's, with tokens that a newcomer may begin with. Knows
nothing of requests and steps.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from mesh_llm.engine.ring.frames import Command, Operation

SLICE = 256
"""Tokens that are compared at once."""


@dataclass(frozen=True, slots=True)
class Beginning:
    """What a newcomer could begin with."""

    place: int
    tokens: int


def common_length(one: Sequence[int], other: Sequence[int]) -> int:
    """Of how many first tokens two lists are the same. Both must be of the same type."""
    end, length = min(len(one), len(other)), 0
    while length < end and one[length : length + SLICE] == other[length : length + SLICE]:
        length += SLICE
    while length < end and one[length] == other[length]:
        length += 1
    return min(length, end)


class Caches:
    def __init__(self, context: int, sequences: int, *, forgets: bool) -> None:
        """`context` cells for all. `forgets`: layers do not keep everything (sliding windows, recurrent
        states), so that a sequence goes on at its end or not at all, and is not copied: cells of a window
        that two sequences share are never used again (`find_slot` of llama_kv_cache)."""
        self._forgets = forgets
        self._cells = np.zeros((sequences, context), np.int32)
        """By place and position; what lies beyond a place's length means nothing."""
        self._lengths = [0] * sequences
        self._holders = np.zeros(context, np.int32)
        """Of each cell: how many places it belongs to."""
        self._unused = np.arange(context, dtype=np.int32)
        """A stack; the first `free` are on it."""
        self.free = context
        self._free_places = list(reversed(range(sequences)))
        self._kept: dict[int, list[int]] = {}
        """Tokens by place; who was used longest ago comes first."""
        self._commands: list[Command] = []

    @property
    def used(self) -> int:
        return len(self._holders) - self.free

    @property
    def has_place(self) -> bool:
        return bool(self._free_places or self._kept)

    def take_commands(self) -> tuple[Command, ...]:
        """Since the last call; they belong before the next rows."""
        commands, self._commands = tuple(self._commands), []
        return commands

    def find(self, tokens: list[int]) -> Beginning | None:
        """The longest beginning of `tokens` that is kept; one token at least is left to be computed."""
        best: Beginning | None = None
        for place, kept in self._kept.items():
            common = min(common_length(kept, tokens), len(tokens) - 1)
            is_usable = common == len(kept) if self._forgets else common > 0
            if is_usable and (best is None or common >= best.tokens):
                best = Beginning(place, common)
        return best

    def take_place(self) -> int:
        """An empty one, for whoever needs it; `has_place` before that."""
        if not self._free_places:
            self._evict(next(iter(self._kept)))
        return self._free_places.pop()

    def take_over(self, beginning: Beginning) -> int:
        """The place of somebody who begins with what `find` has found just now.

        What is kept beyond that stays too where a place is free, or can be had for less than it is worth.
        """
        place, tokens = beginning.place, beginning.tokens
        rest = self._lengths[place] - tokens
        self._kept[place] = self._kept.pop(place)  # used now
        may_copy = rest > 0 and (self._free_places or (len(self._kept) > 1 and rest > tokens))
        if may_copy:
            target = self.take_place()
            self.copy(place, target, tokens)
            return target
        self._cut(place, tokens)
        del self._kept[place]
        return place

    def grow(self, place: int, rows: int) -> None:
        """Rows are computed at its end; as many cells must be free."""
        length = self._lengths[place]
        cells = self._unused[self.free - rows : self.free]
        self._cells[place, length : length + rows] = cells
        self._holders[cells] = 1
        self.free -= rows
        self._lengths[place] = length + rows

    def copy(self, place: int, target: int, tokens: int) -> None:
        """The first tokens of a place belong to an empty one as well."""
        cells = self._cells[place, :tokens]
        self._cells[target, :tokens] = cells
        self._holders[cells] += 1
        self._lengths[target] = tokens
        self._commands.append(Command(Operation.COPY, place, 0, tokens, target))

    def keep(self, place: int, tokens: list[int]) -> None:
        """Nobody's any more. What it holds, the first of `tokens`, stays until it is needed."""
        length = self._lengths[place]
        if length:
            self._kept[place] = tokens[:length]
        else:
            self._free_places.append(place)

    def drop(self, place: int) -> None:
        """Its cells and the place itself are free from the next step on."""
        self._cut(place, 0)
        self._free_places.append(place)

    def make_free(self, cells: int, spared: Beginning | None = None) -> bool:
        """Whether so many are free once as much as must be has been dropped of what is kept: the least
        recently used first, the beginning that is spared not at all."""
        spared_place = -1 if spared is None else spared.place
        while self.free < cells:
            evictable = next((place for place in self._kept if place != spared_place), None)
            if evictable is None:
                break
            self._evict(evictable)
        if self.free < cells and spared is not None and not self._forgets:
            self._cut(spared.place, spared.tokens)
            self._kept[spared.place] = self._kept[spared.place][: spared.tokens]
        return self.free >= cells

    def _evict(self, place: int) -> None:
        del self._kept[place]
        self.drop(place)

    def _cut(self, place: int, length: int) -> None:
        """To so many tokens."""
        held = self._lengths[place]
        if length == held:
            return
        cells = self._cells[place, length:held]
        self._holders[cells] -= 1
        unheld = cells[self._holders[cells] == 0]
        self._unused[self.free : self.free + len(unheld)] = unheld
        self.free += len(unheld)
        self._lengths[place] = length
        self._commands.append(Command(Operation.DROP, place, length))
