"""What a node must not forget about its membership, as one frozen value.

`admission.py` decides from it and gives back the next one; `ledger_file.py` keeps it in the home.
"""

from dataclasses import dataclass, replace

from mesh_llm.core.ids import MeshId, NodeId
from mesh_llm.mesh.admission import certificates
from mesh_llm.mesh.admission.certificates import Certificate
from mesh_llm.mesh.transport import Addresses

MEMBERS_MAX = 1000
"""Of a mesh."""

INVITES_MAX = 1000
"""Made by one node and not expired yet; used ones as well."""


@dataclass(frozen=True, slots=True)
class IssuedInvite:
    id: bytes
    issued: int
    expires: int
    """Seconds since the epoch."""
    once: bool


@dataclass(frozen=True, slots=True)
class UsedInvite:
    id: bytes
    node: NodeId
    """Who came with it."""
    expires: int
    certificate: bytes
    """What that node was given: it gets the same if it lost the answer."""


@dataclass(frozen=True, slots=True)
class KnownMember:
    """For finding the others again after a restart."""

    node: NodeId
    certificate: bytes
    addresses: Addresses
    last_seen: int
    """Seconds since the epoch."""


@dataclass(frozen=True, slots=True)
class Ledger:
    certificate: bytes
    """This node's own."""
    issued: tuple[IssuedInvite, ...] = ()
    used: tuple[UsedInvite, ...] = ()
    notices: tuple[bytes, ...] = ()
    members: tuple[KnownMember, ...] = ()
    port: int = 0
    """Where the others knew this node last, by UDP; 0 for nowhere."""

    @property
    def mesh(self) -> MeshId:
        """Raises PeerError where the certificate is damaged; one that was read is not."""
        return certificates.decode(self.certificate).mesh

    @property
    def node(self) -> NodeId:
        """Whose ledger it is. Raises as `mesh` does."""
        return certificates.decode(self.certificate).node

    @property
    def alone(self) -> bool:
        """This node founded its mesh, and nobody has come yet: nothing is lost if it joins another one."""
        return not (certificates.decode(self.certificate).links or self.members or self.used)

    def with_members(self, members: tuple[KnownMember, ...]) -> "Ledger":
        """The address book anew; beyond MEMBERS_MAX those seen last stay."""
        kept = sorted(members, key=lambda member: (-member.last_seen, member.node))[:MEMBERS_MAX]
        return replace(self, members=tuple(kept))


def founded(node: NodeId, nonce: bytes) -> Ledger:
    """A new mesh, whose only member `node` is. The nonce is 16 bytes of chance."""
    return Ledger(certificates.encode(Certificate(node, nonce)))
