"""Asking others to ask: whom this node sent to whom, and for whom it asks itself."""

from collections.abc import Iterable
from dataclasses import dataclass, field

from mesh_llm.core.ids import NodeId

PATIENCE_S = 5.0
"""A report later than this says nothing of today."""
ASKERS_MAX = 1000
"""Of one node: all members at once."""


@dataclass(frozen=True, slots=True)
class _Errand:
    target: NodeId
    helpers: frozenset[NodeId]
    at: float


@dataclass(frozen=True, slots=True)
class Favour:
    asker: NodeId
    sequence: int
    at: float


@dataclass(slots=True)
class Relays:
    _errands: dict[int, _Errand] = field(default_factory=dict[int, _Errand])
    _favours: dict[NodeId, list[Favour]] = field(default_factory=dict[NodeId, list[Favour]])

    def sent(self, sequence: int, target: NodeId, helpers: Iterable[NodeId], now: float) -> None:
        self._errands[sequence] = _Errand(target, frozenset(helpers), now)

    def was_sent(self, sequence: int, target: NodeId, helper: NodeId, now: float) -> bool:
        """Whether a report of that is one that this node asked for."""
        errand = self._errands.get(sequence)
        return (
            errand is not None
            and errand.target == target
            and helper in errand.helpers
            and now - errand.at <= PATIENCE_S
        )

    def promise(self, target: NodeId, favour: Favour) -> None:
        favours = self._favours.setdefault(target, [])
        if len(favours) < ASKERS_MAX:
            favours.append(favour)

    def fulfil(self, target: NodeId, now: float) -> list[Favour]:
        """The target answered: these are to be told."""
        return [favour for favour in self._favours.pop(target, ()) if now - favour.at <= PATIENCE_S]

    def expire(self, now: float) -> None:
        self._errands = {
            sequence: errand for sequence, errand in self._errands.items() if now - errand.at <= PATIENCE_S
        }
        self._favours = {
            target: favours for target, favours in self._favours.items() if now - favours[-1].at <= PATIENCE_S
        }
