"""A membership certificate: who let whom in, from the founder of the mesh down to its holder.

The mesh's name is the hash of its founder's key and a nonce, so nobody else can hand out memberships of it.
Each link is signed by the node before it and covers all links before it. Whether somebody in the chain has
been thrown out since is `expulsions.py`'s question, not this module's.
"""

import hashlib
from dataclasses import dataclass
from functools import lru_cache
from typing import Annotated

from msgspec import Meta, Struct

from mesh_llm.core.ids import MeshId, NodeId
from mesh_llm.mesh import bounded
from mesh_llm.mesh.admission.signatures import (
    NODE_BYTES,
    SIGNATURE_BYTES,
    NodeKey,
    node_bytes,
    node_id,
    verify,
)
from mesh_llm.mesh.transport import PeerError

CERTIFICATE_BYTES_MAX = 16 * 1024
"""32 links of 120 bytes take 4 KiB; the rest is room for fields to come."""

LINKS_MAX = 32
"""Who lets in whom rarely goes deeper than a few; checking so many signatures takes 4 ms."""

NONCE_BYTES = 16
INVITE_ID_BYTES = 16
MESH_ID_BYTES = 16

REPLACED = bytes(INVITE_ID_BYTES)
"""Stands for an invite where a node vouches for its own next key."""

EPOCH_SECONDS_MAX = 253_402_300_799
"""The end of the year 9999, behind which dates have no name."""

_MESH = b"mesh-llm mesh 1\0"
_DOMAIN = b"mesh-llm certificate 1\0"
_KNOWN_LINKS = 4096
"""Checked signatures that are remembered: a mesh of 1,000 has about as many links, of 250 bytes each."""


@dataclass(frozen=True, slots=True)
class Link:
    """One node vouches for the next."""

    node: NodeId
    issued: int
    """Seconds since the epoch, by the issuer's clock; for people only."""
    invite: bytes
    """Id of the invite that was redeemed, or REPLACED."""
    signature: bytes


@dataclass(frozen=True, slots=True)
class Certificate:
    founder: NodeId
    nonce: bytes
    links: tuple[Link, ...] = ()

    @property
    def mesh(self) -> MeshId:
        return mesh_id(self.founder, self.nonce)

    @property
    def node(self) -> NodeId:
        """Whose membership it is."""
        return self.links[-1].node if self.links else self.founder


@dataclass(frozen=True, slots=True)
class Standing:
    """What a certificate proves."""

    mesh: MeshId
    chain: tuple[NodeId, ...]
    """The founder first, the holder last."""
    invite: bytes | None
    """With which the holder came; None for the founder."""

    @property
    def node(self) -> NodeId:
        return self.chain[-1]

    @property
    def depth(self) -> int:
        """0 for the founder. Less is more senior."""
        return len(self.chain) - 1


class _WireLink(Struct, array_like=True, frozen=True):
    node: Annotated[bytes, Meta(min_length=NODE_BYTES, max_length=NODE_BYTES)]
    issued: Annotated[int, Meta(ge=0, le=EPOCH_SECONDS_MAX)]
    invite: Annotated[bytes, Meta(min_length=INVITE_ID_BYTES, max_length=INVITE_ID_BYTES)]
    signature: Annotated[bytes, Meta(min_length=SIGNATURE_BYTES, max_length=SIGNATURE_BYTES)]


class _WireCertificate(Struct, array_like=True, frozen=True):
    founder: Annotated[bytes, Meta(min_length=NODE_BYTES, max_length=NODE_BYTES)]
    nonce: Annotated[bytes, Meta(min_length=NONCE_BYTES, max_length=NONCE_BYTES)]
    links: Annotated[tuple[_WireLink, ...], Meta(max_length=LINKS_MAX)]


def mesh_id(founder: NodeId, nonce: bytes) -> MeshId:
    return MeshId(hashlib.sha256(_MESH + node_bytes(founder) + nonce).digest()[:MESH_ID_BYTES].hex())


def extend(certificate: Certificate, key: NodeKey, node: NodeId, now: float, invite: bytes) -> Certificate:
    """`key`, whose certificate this is, vouches for `node`. Ask `can_extend` first."""
    assert key.node == certificate.node
    assert can_extend(certificate, node)
    signature = key.sign(_DOMAIN, _body(_digest(certificate), node, int(now), invite))
    link = Link(node, int(now), invite, signature)
    return Certificate(certificate.founder, certificate.nonce, (*certificate.links, link))


def can_extend(certificate: Certificate, node: NodeId) -> bool:
    return len(certificate.links) < LINKS_MAX and node not in chain_of(certificate)


def chain_of(certificate: Certificate) -> tuple[NodeId, ...]:
    return (certificate.founder, *(link.node for link in certificate.links))


def part_of(certificate: Certificate, node: NodeId) -> Certificate | None:
    """The certificate of one who stands in this one's chain; None for somebody else."""
    chain = chain_of(certificate)
    if node not in chain:
        return None
    return Certificate(certificate.founder, certificate.nonce, certificate.links[: chain.index(node)])


def encode(certificate: Certificate) -> bytes:
    links = tuple(
        _WireLink(node_bytes(link.node), link.issued, link.invite, link.signature)
        for link in certificate.links
    )
    return bounded.encode(_WireCertificate(node_bytes(certificate.founder), certificate.nonce, links))


def decode(data: bytes) -> Certificate:
    """Raises PeerError. Nothing is proved yet: see `verified`."""
    wire = bounded.decode(data, _WireCertificate, bytes_max=CERTIFICATE_BYTES_MAX, what="A certificate")
    links = tuple(Link(node_id(link.node), link.issued, link.invite, link.signature) for link in wire.links)
    return Certificate(node_id(wire.founder), wire.nonce, links)


def verified(data: bytes) -> Standing:
    """What the certificate proves. Raises PeerError where it is damaged or forged."""
    certificate = decode(data)
    chain = chain_of(certificate)
    if len(set(chain)) != len(chain):
        raise PeerError("A certificate that names a node twice.")
    digest, issuer = _root(certificate), certificate.founder
    for link in certificate.links:
        body = _body(digest, link.node, link.issued, link.invite)
        if not _holds(issuer, body, link.signature):
            raise PeerError("A certificate with a signature that does not hold.")
        digest, issuer = _next(body, link.signature), link.node
    return Standing(certificate.mesh, chain, certificate.links[-1].invite if certificate.links else None)


@lru_cache(_KNOWN_LINKS)
def _holds(issuer: NodeId, body: bytes, signature: bytes) -> bool:
    """Members share most of their chains, and show them often."""
    return verify(issuer, _DOMAIN, body, signature)


def _root(certificate: Certificate) -> bytes:
    return hashlib.sha256(_MESH + node_bytes(certificate.founder) + certificate.nonce).digest()


def _digest(certificate: Certificate) -> bytes:
    digest = _root(certificate)
    for link in certificate.links:
        digest = _next(_body(digest, link.node, link.issued, link.invite), link.signature)
    return digest


def _next(body: bytes, signature: bytes) -> bytes:
    return hashlib.sha256(body + signature).digest()


def _body(digest: bytes, node: NodeId, issued: int, invite: bytes) -> bytes:
    """Every part has a fixed length: no two links share a body."""
    return digest + node_bytes(node) + issued.to_bytes(8, "big") + invite
