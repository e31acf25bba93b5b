"""Signing with a node's key, and checking what others signed.

Every signature covers a domain, which says what it is for: what was signed as one thing never passes for
another. Where keys lie on disk is `identity.py`'s business.
"""

from random import Random

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from mesh_llm.core.ids import NodeId
from mesh_llm.mesh.transport import PeerError

SEED_BYTES = 32
NODE_BYTES = 32
SIGNATURE_BYTES = 64


class NodeKey:
    """What makes a node itself. Its seed is a secret: it is not in its repr."""

    def __init__(self, seed: bytes) -> None:
        self._private = Ed25519PrivateKey.from_private_bytes(seed)
        self.seed = seed
        """32 bytes, as transports want it."""
        self.node = NodeId(self._private.public_key().public_bytes_raw().hex())

    @classmethod
    def draw(cls, chance: Random) -> "NodeKey":
        """`chance` must be a SystemRandom outside tests."""
        return cls(chance.randbytes(SEED_BYTES))

    def __repr__(self) -> str:
        return f"<NodeKey of {self.node}>"

    def sign(self, domain: bytes, body: bytes) -> bytes:
        """`domain` is like `b"mesh-llm invite 1\\0"`: its null keeps one from beginning another."""
        return self._private.sign(_in_domain(domain, body))


def verify(node: NodeId, domain: bytes, body: bytes, signature: bytes) -> bool:
    """Whether `node` signed `body` for `domain`. A broken id or signature is False like a wrong one."""
    try:
        key = Ed25519PublicKey.from_public_bytes(bytes.fromhex(node))
        key.verify(signature, _in_domain(domain, body))
    except (InvalidSignature, ValueError):
        return False
    return True


def node_bytes(node: NodeId) -> bytes:
    """The 32 bytes that an id takes on the wire."""
    return bytes.fromhex(node)


def node_id(raw: bytes) -> NodeId:
    """Raises PeerError where these cannot be a key."""
    if len(raw) != NODE_BYTES:
        raise PeerError(f"A node id has {NODE_BYTES} bytes, this one {len(raw)}.")
    return NodeId(raw.hex())


def _in_domain(domain: bytes, body: bytes) -> bytes:
    assert domain.startswith(b"mesh-llm "), domain
    assert domain.index(b"\0") == len(domain) - 1, domain
    return domain + body
