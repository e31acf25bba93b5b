"""To whom a node lends memory for the stages of others. Pure: who asks and what this node sees, a word out.

Of one model it lends one stage to one leader, until that lets it go or is gone; a head of its own counts as
lent to itself. Two leaders can therefore never hold half the mesh each for good: who comes first in the order
of claims (`claims.py`) gets what the other lets go of. Counterpart: the holder of stages, which tells when a
lease has ended; it ends with the stream that it came by.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from mesh_llm.core.ids import NodeId, short
from mesh_llm.core.quantities import human_bytes
from mesh_llm.core.stages import SplitClaim
from mesh_llm.splits.claims import is_leading, precedence


@dataclass(frozen=True, slots=True)
class Lease:
    model: str
    leader: NodeId
    bytes: int


class Leases:
    def __init__(self) -> None:
        self._lent: dict[str, Lease] = {}

    @property
    def bytes_lent(self) -> int:
        return sum(lease.bytes for lease in self._lent.values())

    def get(self, model: str) -> Lease | None:
        return self._lent.get(model)

    def ask(self, lease: Lease, room: int, claims: Mapping[NodeId, SplitClaim]) -> str | None:
        """None: it is lent from now on. Else why not.

        `room`: bytes that stages may take here in all. `claims`: of this model, of all living members and of
        this node, as it sees them now. A leader that plans anew lets its old lease go first.
        """
        refusal = self._refusal(lease, room, claims)
        if refusal is None:
            self._lent[lease.model] = lease
        return refusal

    def end(self, lease: Lease) -> None:
        """The leader has let it go, or its stream has ended, and the stage's memory is free again. Says
        nothing of a lease that was given since."""
        if self._lent.get(lease.model) == lease:
            del self._lent[lease.model]

    def _refusal(self, lease: Lease, room: int, claims: Mapping[NodeId, SplitClaim]) -> str | None:
        lent = self._lent.get(lease.model)
        if lent is not None:
            return f"this node holds layers of that model for {short(lent.leader)} already"
        rival = contradiction(lease.model, lease.leader, claims)
        if rival is not None:
            return f"{short(rival)} leads that model"
        free = room - self.bytes_lent
        if lease.bytes > free:
            return f"{human_bytes(lease.bytes)} are more than the {human_bytes(max(0, free))} that are free"
        return None


def contradiction(model: str, leader: NodeId, claims: Mapping[NodeId, SplitClaim]) -> NodeId | None:
    """Who leads this model in the view of the asked one, and comes before `leader`; None if nobody does.

    That it asks counts as leading: word of it may not have come yet.
    """
    seen = claims.get(leader, SplitClaim(model))
    asks = seen if is_leading(seen) else SplitClaim(model, "leading", seen.room)
    before = [
        precedence(node, claim)
        for node, claim in claims.items()
        if node != leader and is_leading(claim) and precedence(node, claim) < precedence(leader, asks)
    ]
    return min(before)[2] if before else None
