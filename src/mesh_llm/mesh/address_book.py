"""Every member that this node has met or heard of, living or not: its certificate, and where it was.

Kept in the ledger, so that a node that starts again finds the others. Who is a member decides `admission.py`.
"""

from collections.abc import Iterable
from dataclasses import replace

from mesh_llm.core.ids import NodeId
from mesh_llm.mesh.admission.ledger import KnownMember, Ledger
from mesh_llm.mesh.transport import Addresses


class AddressBook:
    def __init__(self, members: Iterable[KnownMember]) -> None:
        self._members = {member.node: member for member in members}
        self.changed = False
        """Since it was last written, in more than who was seen when."""

    def nodes(self) -> tuple[NodeId, ...]:
        """In the order of their ids."""
        return tuple(sorted(self._members))

    def members(self) -> tuple[KnownMember, ...]:
        return tuple(self._members.values())

    def addresses_of(self, node: NodeId) -> Addresses:
        known = self._members.get(node)
        return known.addresses if known else Addresses()

    def remember(self, node: NodeId, certificate: bytes, addresses: Addresses, now: float) -> None:
        """`now`: seconds since the epoch."""
        before = self._members.get(node)
        known = self._members[node] = KnownMember(node, certificate, addresses, int(now))
        if before is None or replace(before, last_seen=known.last_seen) != known:
            self.changed = True

    def remove(self, node: NodeId) -> None:
        del self._members[node]
        self.changed = True

    def written(self, ledger: Ledger, living: Iterable[NodeId], now: float) -> Ledger:
        """The ledger with these members, the living ones seen now. The book keeps what the ledger keeps."""
        for node in living:
            if node in self._members:
                self._members[node] = replace(self._members[node], last_seen=int(now))
        ledger = ledger.with_members(self.members())
        self._members = {member.node: member for member in ledger.members}
        self.changed = False
        return ledger
