"""Who leads when several nodes want the same model split. Pure: claims and the time in, a standing out.

A claim that goes further comes first (serving, leading, wanting), then more room, then the lower node id; all
who hear the same claims agree. Nobody leads before its claim has stood first for SETTLE_S, so that two nodes
that start at the same moment hear of each other before either takes memory. Counterpart: `leases.py`, by
which a node that lends memory lends it to one leader only. How claims travel is the mesh's affair.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from mesh_llm.core.ids import NodeId
from mesh_llm.core.stages import SplitClaim

SETTLE_S = 3.0


@dataclass(frozen=True, slots=True)
class Lead:
    """This node plans, reserves memory and serves."""


@dataclass(frozen=True, slots=True)
class Follow:
    """That one leads: give it memory if it asks, send requests to it. Who has led until now drains and lets
    go of its stages."""

    leader: NodeId


@dataclass(frozen=True, slots=True)
class Settling:
    """Nobody leads yet: take no memory; look again when claims change, or at `until`."""

    until: float | None
    """None: another one comes first."""


Standing = Lead | Follow | Settling


class Candidacy:
    """One node's part in it, for one model that it wants."""

    def __init__(self, me: NodeId, model: str, room: int) -> None: ...

    @property
    def claim(self) -> SplitClaim:
        """To be put into this node's advert now."""
        raise NotImplementedError

    def handle(self, claims: Mapping[NodeId, SplitClaim], now: float) -> Standing:
        """`claims`: of this model, of all other living members, as seen now."""
        raise NotImplementedError

    def serving(self, answers: bool) -> None:
        """Whether the split model answers requests now; said by who carries out the plan."""
        raise NotImplementedError
