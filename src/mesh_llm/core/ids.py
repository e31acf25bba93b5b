"""Names for nodes and meshes that nobody else can take: each is bound to a key."""

from typing import NewType

NodeId = NewType("NodeId", str)
"""A node's Ed25519 public key as 64 lower-case hexadecimal digits."""

MeshId = NewType("MeshId", str)
"""32 hexadecimal digits: the hash of who founded the mesh (`mesh/admission/certificates.py`)."""

SHORT_DIGITS = 10
"""Of an id where people read it: 40 bits tell a thousand nodes apart."""


def short(identity: NodeId | MeshId) -> str:
    return identity[:SHORT_DIGITS]
