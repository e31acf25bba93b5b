"""A leave as a record that only the leaver can make, so that it may be believed from anybody."""

from mesh_llm.mesh.admission.signatures import NodeKey, verify
from mesh_llm.mesh.gossip.news import Leave

_DOMAIN = b"mesh-llm leave 1\0"


def signed_leave(key: NodeKey, incarnation: int) -> Leave:
    """`incarnation`: what `Membership.incarnation` is when the node goes."""
    return Leave(key.node, incarnation, key.sign(_DOMAIN, incarnation.to_bytes(8, "big")))


def is_genuine(leave: Leave) -> bool:
    """Whether the leaver itself said so."""
    return verify(leave.node, _DOMAIN, leave.incarnation.to_bytes(8, "big"), leave.signature)
