"""Asking others to ask: whom this node sent to whom, and for whom it asks itself."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from mesh_llm.core.ids import NodeId

PATIENCE_S = 5.0
"""A report later than this says nothing of today."""
REPORTS_NEEDED = 2
"""Of three helpers: one liar among them cannot keep a dead node alive. Of fewer helpers one must do."""
ASKERS_MAX = 1000
"""Of one node: all members at once."""


@dataclass(slots=True)
class _Errand:
    target: NodeId
    at: float
    silent: set[NodeId]
    """Helpers that have not reported yet."""
    missing: int
    """Reports until the target counts as living."""


@dataclass(frozen=True, slots=True)
class Favour:
    asker: NodeId
    sequence: int
    at: float


@dataclass(slots=True)
class Inquiries:
    _errands: dict[int, _Errand] = field(default_factory=dict[int, _Errand])
    _favours: dict[NodeId, list[Favour]] = field(default_factory=dict[NodeId, list[Favour]])

    def sent(self, sequence: int, target: NodeId, helpers: Sequence[NodeId], now: float) -> None:
        needed = REPORTS_NEEDED if len(helpers) > REPORTS_NEEDED else 1
        self._errands[sequence] = _Errand(target, now, set(helpers), needed)

    def reported(self, sequence: int, target: NodeId, helper: NodeId, now: float) -> bool:
        """Whether enough of those that were asked have reported by now that the target answered."""
        errand = self._errands.get(sequence)
        if errand is None or errand.target != target or now - errand.at > PATIENCE_S:
            return False
        if helper in errand.silent:
            errand.silent.remove(helper)
            errand.missing -= 1
        return errand.missing <= 0

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
