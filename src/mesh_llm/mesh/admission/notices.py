"""What every member must hear: who is thrown out, which invite is void. The wire form, and how it spreads.

A notice is signed by a member and carries that member's certificate, so it can be checked by anyone, whoever
brings it. `Notices` floods: what is new goes on to everybody connected but the one it came from. What
expulsions mean is `expulsions.py`'s business; `noticing.py` does the sending.
"""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from enum import IntEnum
from typing import Annotated

from msgspec import Meta, Struct

from mesh_llm.core.ids import MeshId, NodeId
from mesh_llm.mesh import bounded
from mesh_llm.mesh.admission import certificates
from mesh_llm.mesh.admission.certificates import (
    CERTIFICATE_BYTES_MAX,
    EPOCH_SECONDS_MAX,
    INVITE_ID_BYTES,
    MESH_ID_BYTES,
    Standing,
)
from mesh_llm.mesh.admission.signatures import (
    NODE_BYTES,
    SIGNATURE_BYTES,
    NodeKey,
    node_bytes,
    node_id,
    verify,
)
from mesh_llm.mesh.transport import FRAME_BYTES_MAX, PeerError

NOTICE_BYTES_MAX = 64 * 1024
"""1,000 spared members of 34 bytes and a certificate, with room to spare."""

SPARED_MAX = 1000
"""As many members as a mesh may have."""

NOTICES_MAX = 1000
"""Of each kind. Beyond, those of the most senior issuers stay: they are what the others answer to."""

SPARED_OFTEN = 32
LONG_NOTICES_MAX = 64
"""Of the expulsions that spare more than that many: a member with bad intent fills 4 MiB, not 64."""

DIGEST_BYTES = 8
"""Two sets that differ agree by chance once in 2^64."""

BATCH_BYTES_MAX = FRAME_BYTES_MAX // 2
"""Of notices in one frame."""


class _Kind(IntEnum):
    EXPULSION = 1
    REVOCATION = 2


_DOMAINS = {
    _Kind.EXPULSION: b"mesh-llm expulsion 1\0",
    _Kind.REVOCATION: b"mesh-llm revocation 1\0",
}


@dataclass(frozen=True, slots=True)
class Expulsion:
    id: bytes
    by: Standing
    at: int
    """Seconds since the epoch, by the issuer's clock; for people only."""
    expelled: NodeId
    spared: frozenset[NodeId]
    """Members who were let in by the expelled node, or by those it let in, and stay."""

    @property
    def own(self) -> bool:
        """A node took itself out: its key was replaced."""
        return self.by.node == self.expelled


@dataclass(frozen=True, slots=True)
class Revocation:
    id: bytes
    by: Standing
    at: int
    invite: bytes


Notice = Expulsion | Revocation


class _Envelope(Struct, array_like=True, frozen=True):
    kind: Annotated[int, Meta(ge=0, le=255)]
    body: bytes
    signature: Annotated[bytes, Meta(max_length=SIGNATURE_BYTES)]


class _Body(Struct, frozen=True):
    mesh: Annotated[bytes, Meta(min_length=MESH_ID_BYTES, max_length=MESH_ID_BYTES)]
    certificate: Annotated[bytes, Meta(max_length=CERTIFICATE_BYTES_MAX)]
    """Of the issuer."""
    at: Annotated[int, Meta(ge=0, le=EPOCH_SECONDS_MAX)]


class _ExpulsionBody(_Body, frozen=True):
    node: Annotated[bytes, Meta(min_length=NODE_BYTES, max_length=NODE_BYTES)]
    spared: Annotated[
        tuple[Annotated[bytes, Meta(min_length=NODE_BYTES, max_length=NODE_BYTES)], ...],
        Meta(max_length=SPARED_MAX),
    ] = ()


class _RevocationBody(_Body, frozen=True):
    invite: Annotated[bytes, Meta(min_length=INVITE_ID_BYTES, max_length=INVITE_ID_BYTES)]


_BODIES: dict[_Kind, type[_ExpulsionBody] | type[_RevocationBody]] = {
    _Kind.EXPULSION: _ExpulsionBody,
    _Kind.REVOCATION: _RevocationBody,
}


def expulsion(key: NodeKey, certificate: bytes, node: NodeId, spared: Iterable[NodeId], now: float) -> bytes:
    """A notice by `key`, whose certificate this is."""
    mesh = bytes.fromhex(certificates.decode(certificate).mesh)
    kept = tuple(node_bytes(spared_node) for spared_node in sorted(spared)[:SPARED_MAX])
    return _sealed(key, _Kind.EXPULSION, _ExpulsionBody(mesh, certificate, int(now), node_bytes(node), kept))


def revocation(key: NodeKey, certificate: bytes, invite: bytes, now: float) -> bytes:
    """A notice by `key`, whose certificate this is."""
    mesh = bytes.fromhex(certificates.decode(certificate).mesh)
    return _sealed(key, _Kind.REVOCATION, _RevocationBody(mesh, certificate, int(now), invite))


def decode_notice(data: bytes) -> Notice | None:
    """None for a kind that is not known here. Raises PeerError where certificate or signature do not hold."""
    return _checked(_opened(data))


def _opened(data: bytes) -> _Envelope:
    return bounded.decode(data, _Envelope, bytes_max=NOTICE_BYTES_MAX, what="A notice")


def _identity(envelope: _Envelope) -> bytes:
    """Of what was signed: who passes a notice on cannot make two of one."""
    return hashlib.sha256(envelope.kind.to_bytes(1, "big") + envelope.body).digest()


def _checked(envelope: _Envelope) -> Notice | None:
    if envelope.kind not in _DOMAINS:
        return None
    kind = _Kind(envelope.kind)
    body = bounded.decode(envelope.body, _BODIES[kind], bytes_max=NOTICE_BYTES_MAX, what="A notice's body")
    by = certificates.verified(body.certificate)
    if bytes.fromhex(by.mesh) != body.mesh:
        raise PeerError("A notice for one mesh, by a member of another.")
    if not verify(by.node, _DOMAINS[kind], envelope.body, envelope.signature):
        raise PeerError("A notice with a signature that does not hold.")
    identity = _identity(envelope)
    if isinstance(body, _RevocationBody):
        return Revocation(identity, by, body.at, body.invite)
    return Expulsion(
        identity, by, body.at, node_id(body.node), frozenset(node_id(spared) for spared in body.spared)
    )


def encode_batches(notices: Iterable[bytes]) -> list[bytes]:
    """Frames for a NOTICE stream."""
    frames: list[bytes] = []
    batch: list[bytes] = []
    room = BATCH_BYTES_MAX
    for notice in notices:
        if batch and len(notice) > room:
            frames.append(bounded.encode(batch))
            batch, room = [], BATCH_BYTES_MAX
        batch.append(notice)
        room -= len(notice)
    return [*frames, bounded.encode(batch)] if batch else frames


def decode_batch(frame: bytes) -> tuple[bytes, ...]:
    """The notices of a frame, not looked into yet. Raises PeerError."""
    return bounded.decode(frame, tuple[bytes, ...], bytes_max=FRAME_BYTES_MAX, what="A batch of notices")


def _is_long(notice: Notice) -> bool:
    return isinstance(notice, Expulsion) and len(notice.spared) > SPARED_OFTEN


def _sealed(key: NodeKey, kind: _Kind, body: _Body) -> bytes:
    data = bounded.encode(body)
    return bounded.encode(_Envelope(kind, data, key.sign(_DOMAINS[kind], data)))


@dataclass(frozen=True, slots=True)
class NoticeReceived:
    notice: bytes
    sender: NodeId | None
    """None: it comes from this node itself."""


@dataclass(frozen=True, slots=True)
class Forward:
    """To everybody connected."""

    notice: bytes
    besides: NodeId | None


@dataclass(frozen=True, slots=True)
class NoticeAccepted:
    """Judge everybody connected anew, and write the ledger."""

    notice: Notice


Effect = Forward | NoticeAccepted


class Notices:
    """All that are known, and what is new. The set only grows, up to its limit, and order does not matter:
    nodes that have exchanged everything hold the same."""

    def __init__(self, mesh: MeshId, known: Iterable[bytes] = ()) -> None:
        """`known` are this node's own records. Raises PeerError where they are damaged."""
        self._mesh = mesh
        self._held: dict[bytes, tuple[Notice, bytes]] = {}
        """By identity: what it says, and its bytes."""
        self._digest: bytes | None = None
        for notice in known:
            self.handle(NoticeReceived(notice, None))

    def handle(self, event: NoticeReceived) -> list[Effect]:
        """Raises PeerError for a notice that is damaged, forged or another mesh's."""
        envelope = _opened(event.notice)
        if _identity(envelope) in self._held:
            return []
        notice = _checked(envelope)
        if notice is None:
            return []
        if notice.by.mesh != self._mesh:
            raise PeerError("A notice of another mesh.")
        data = bounded.encode(envelope)
        self._held[notice.id] = (notice, data)
        self._digest = None
        if self._dropped(notice) is notice:
            return []
        return [Forward(data, event.sender), NoticeAccepted(notice)]

    def digest(self) -> bytes:
        """Eight bytes that are the same on nodes which hold the same notices."""
        if self._digest is None:
            self._digest = hashlib.sha256(b"".join(sorted(self._held))).digest()[:DIGEST_BYTES]
        return self._digest

    def all(self) -> tuple[bytes, ...]:
        """For a full exchange, and for the ledger."""
        return tuple(data for _, data in self._held.values())

    def besides(self, theirs: Iterable[bytes]) -> tuple[bytes, ...]:
        """What somebody who holds `theirs` lacks. Raises PeerError."""
        known = {_identity(_opened(notice)) for notice in theirs}
        return tuple(data for identity, (_, data) in self._held.items() if identity not in known)

    def expulsions(self) -> tuple[Expulsion, ...]:
        return tuple(notice for notice, _ in self._held.values() if isinstance(notice, Expulsion))

    def revoked(self, invite: bytes) -> bool:
        return any(
            isinstance(notice, Revocation) and notice.invite == invite for notice, _ in self._held.values()
        )

    def _dropped(self, added: Notice) -> Notice | None:
        """Keeps the set within its limit."""
        alike = [
            notice
            for notice, _ in self._held.values()
            if type(notice) is type(added) and _is_long(notice) == _is_long(added)
        ]
        if len(alike) <= (LONG_NOTICES_MAX if _is_long(added) else NOTICES_MAX):
            return None
        worst = max(alike, key=lambda notice: (notice.by.depth, notice.id))
        del self._held[worst.id]
        return worst
