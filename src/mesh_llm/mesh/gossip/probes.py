"""Who is asked next whether it lives, and who still owes an answer.

Every second question goes to the next node in the ring of ids, so that each node is asked by somebody every
two seconds; the others go round all members in a shuffled order, so that each pair talks now and then.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from random import Random

from mesh_llm.core.ids import NodeId
from mesh_llm.mesh.gossip.roster import Roster


@dataclass(frozen=True, slots=True)
class Probe:
    sequence: int
    target: NodeId


@dataclass(slots=True)
class Probes:
    """The answers that are awaited: one for each node at most."""

    _sequence: int = 0
    _by_sequence: dict[int, Probe] = field(default_factory=dict[int, Probe])
    _by_target: dict[NodeId, Probe] = field(default_factory=dict[NodeId, Probe])

    def __len__(self) -> int:
        return len(self._by_sequence)

    def begin(self, target: NodeId) -> Probe:
        self.end(target)
        self._sequence += 1
        probe = Probe(self._sequence, target)
        self._by_sequence[probe.sequence] = self._by_target[target] = probe
        return probe

    def of(self, target: NodeId) -> Probe | None:
        return self._by_target.get(target)

    def get(self, sequence: int) -> Probe | None:
        return self._by_sequence.get(sequence)

    def end(self, target: NodeId) -> None:
        probe = self._by_target.pop(target, None)
        if probe is not None:
            del self._by_sequence[probe.sequence]

    def targets(self) -> tuple[NodeId, ...]:
        return tuple(self._by_target)


@dataclass(slots=True)
class Rounds:
    """Whose turn it is."""

    chance: Random
    _turn: int = 0
    _round: list[NodeId] = field(default_factory=list[NodeId])

    def next(self, me: NodeId, roster: Roster) -> NodeId | None:
        """A living member; None where there is none."""
        self._turn += 1
        return roster.after(me) if self._turn % 2 else self._next_in_round(roster)

    def gone_due(self) -> bool:
        """The dead are asked too, rarely: this is how the halves of a healed partition find each other."""
        return self._turn % 2 == 0

    def _next_in_round(self, roster: Roster) -> NodeId | None:
        for _ in range(2):
            while self._round:
                member = roster.get(node := self._round.pop())
                if member is not None and member.health.living:
                    return node
            self._round = list(roster.living())
            self.chance.shuffle(self._round)
        return None


def some(chance: Random, nodes: Sequence[NodeId], count: int) -> list[NodeId]:
    """Drawn without repetition from nodes in a fixed order."""
    return chance.sample(nodes, min(count, len(nodes)))
