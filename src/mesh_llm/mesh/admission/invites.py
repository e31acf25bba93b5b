"""Invite tokens: what one person sends another so that a second machine can join.

A token names the mesh and a few doors to it, and is signed by the member who made it, whose certificate it
carries. It is text that survives mail and chat: each way in which it can be spoiled has its own message.
Whether it was used or revoked only the members know: `admission.py` answers for them.
"""

import base64
import binascii
import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Annotated

from msgspec import Meta, Struct

from mesh_llm.core.errors import InviteFault, InviteRefused
from mesh_llm.core.ids import MeshId, NodeId, short
from mesh_llm.mesh import addresses, bounded
from mesh_llm.mesh.addresses import ADDRESS_CHARACTERS_MAX, RELAY_CHARACTERS_MAX
from mesh_llm.mesh.admission import certificates
from mesh_llm.mesh.admission.certificates import CERTIFICATE_BYTES_MAX, EPOCH_SECONDS_MAX, INVITE_ID_BYTES
from mesh_llm.mesh.admission.signatures import (
    NODE_BYTES,
    SIGNATURE_BYTES,
    NodeKey,
    node_bytes,
    node_id,
    verify,
)
from mesh_llm.mesh.transport import Addresses, PeerError

TTL_SECONDS_DEFAULT = 7 * 86_400
TTL_SECONDS_MAX = 365 * 86_400
"""A token that lives longer is one that somebody forgot."""

SKEW_SECONDS_MAX = 300.0
"""Clocks of home machines differ; five minutes is what Kerberos allows."""

DOORS_MAX = 4
"""Of which one will be running when the token is used; each costs about 80 characters."""

DOOR_ADDRESSES_MAX = 8
"""A machine with some container bridges, in both address families."""

INVITE_BODY_BYTES_MAX = 24 * 1024
"""The longest certificate and four doors of everything."""

PREFIX = "mesh1"
_DOMAIN = b"mesh-llm invite 1\0"
_LENGTH_BYTES = 2
_TEXT_MAX = 64 * 1024
"""Characters looked at: more than any token has."""


@dataclass(frozen=True, slots=True)
class Door:
    """A member that may be running when the token is used."""

    node: NodeId
    addresses: Addresses


@dataclass(frozen=True, slots=True)
class Invite:
    """What a token says. Its signature and its maker's certificate hold."""

    token: str
    mesh: MeshId
    id: bytes
    issuer: NodeId
    certificate: bytes
    """The issuer's."""
    doors: tuple[Door, ...]
    """To be tried in this order; the issuer comes first."""
    issued: int
    expires: int
    """Seconds since the epoch."""
    once: bool
    """Only the issuer's door takes it, and only for one node."""


class _WireDoor(Struct, array_like=True, frozen=True):
    node: Annotated[bytes, Meta(min_length=NODE_BYTES, max_length=NODE_BYTES)]
    direct: Annotated[
        tuple[Annotated[str, Meta(max_length=ADDRESS_CHARACTERS_MAX)], ...],
        Meta(max_length=DOOR_ADDRESSES_MAX),
    ]
    relay: Annotated[str, Meta(max_length=RELAY_CHARACTERS_MAX)] | None


class _WireInvite(Struct, array_like=True, frozen=True):
    id: Annotated[bytes, Meta(min_length=INVITE_ID_BYTES, max_length=INVITE_ID_BYTES)]
    certificate: Annotated[bytes, Meta(max_length=CERTIFICATE_BYTES_MAX)]
    doors: Annotated[tuple[_WireDoor, ...], Meta(min_length=1, max_length=DOORS_MAX)]
    issued: Annotated[int, Meta(ge=0, le=EPOCH_SECONDS_MAX)]
    expires: Annotated[int, Meta(ge=0, le=EPOCH_SECONDS_MAX)]
    once: bool


def make(
    key: NodeKey,
    certificate: bytes,
    doors: Sequence[Door],
    identity: bytes,
    *,
    issued: float,
    expires: float,
    once: bool,
) -> str:
    """A token by `key`, whose certificate this is and whose door is the first."""
    assert doors[0].node == key.node
    told = [_wire_door(door) for door in doors[: 1 if once else DOORS_MAX]]
    body = bounded.encode(_WireInvite(identity, certificate, tuple(told), int(issued), int(expires), once))
    sealed = len(body).to_bytes(_LENGTH_BYTES, "big") + body + key.sign(_DOMAIN, body)
    return PREFIX + base64.urlsafe_b64encode(sealed).rstrip(b"=").decode("ascii")


def parse(text: str, now: float, mesh: MeshId | None = None) -> Invite:
    """A token that may be used now, by a node that belongs to no mesh or to `mesh`. Raises InviteRefused."""
    invite = read(text)
    if now > invite.expires + SKEW_SECONDS_MAX:
        raise expired(invite)
    if mesh is not None and invite.mesh != mesh:
        raise foreign(invite, mesh)
    return invite


def read(text: str) -> Invite:
    """What a token says, whether or not it may still be used. Raises InviteRefused."""
    token = "".join(text[:_TEXT_MAX].split()).strip("\"'<>")
    sealed = _whole(token)
    body, signature = sealed[_LENGTH_BYTES:-SIGNATURE_BYTES], sealed[-SIGNATURE_BYTES:]
    try:
        wire = bounded.decode(body, _WireInvite, bytes_max=INVITE_BODY_BYTES_MAX, what="An invite")
        issuer = certificates.verified(wire.certificate)
        doors = tuple(_door(door) for door in wire.doors)
    except PeerError:
        raise _damaged() from None
    if not verify(issuer.node, _DOMAIN, body, signature) or doors[0].node != issuer.node:
        raise _damaged()
    return Invite(
        token,
        issuer.mesh,
        wire.id,
        issuer.node,
        wire.certificate,
        doors,
        wire.issued,
        wire.expires,
        wire.once,
    )


def _whole(token: str) -> bytes:
    """The bytes of a token, neither fewer nor more than it says. Raises InviteRefused."""
    if not token.startswith(PREFIX):
        raise _no_token(token)
    text = token[len(PREFIX) :]
    if re.search(r"[^A-Za-z0-9_-]", text):
        raise InviteRefused(
            InviteFault.MALFORMED,
            "The invite token is damaged: it has characters that no token has. Copy it again, all of it.",
        )
    data = _decoded(text)
    if len(data) < _LENGTH_BYTES:
        raise InviteRefused(
            InviteFault.TRUNCATED, "The invite token is cut off after its first characters. Copy all of it."
        )
    length = int.from_bytes(data[:_LENGTH_BYTES], "big")
    if length > INVITE_BODY_BYTES_MAX:
        raise _damaged()
    size = _LENGTH_BYTES + length + SIGNATURE_BYTES
    missing = -(-size * 8 // 6) - len(text)
    if missing > 0:
        raise _truncated(missing)
    if missing < 0:
        raise InviteRefused(
            InviteFault.MALFORMED,
            f"The invite token has {-missing} characters too many, or is damaged. Copy it again, alone.",
        )
    return data


def _decoded(text: str) -> bytes:
    """As much as can be decoded: a last character that stands alone holds no whole byte."""
    if len(text) % 4 == 1:
        text = text[:-1]
    try:
        return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
    except binascii.Error:
        raise _damaged() from None


def _wire_door(door: Door) -> _WireDoor:
    told = addresses.tellable(door.addresses, DOOR_ADDRESSES_MAX)
    return _WireDoor(node_bytes(door.node), told.direct, told.relay)


def _door(wire: _WireDoor) -> Door:
    """Raises PeerError."""
    where = Addresses(wire.direct, wire.relay)
    addresses.check(where)
    return Door(node_id(wire.node), where)


def _no_token(text: str) -> InviteRefused:
    if re.match(r"mesh\d", text):
        return InviteRefused(
            InviteFault.MALFORMED,
            "The invite token was made by another version of mesh-llm. Install the same one here.",
        )
    return InviteRefused(
        InviteFault.MALFORMED,
        f"This is no invite token: it must begin with {PREFIX}. A node prints one when it starts; "
        "`mesh-llm invite` makes more.",
    )


def _damaged() -> InviteRefused:
    return InviteRefused(
        InviteFault.MALFORMED,
        "The invite token is damaged: some of its characters have changed. Copy it again, all of it.",
    )


def _truncated(missing: int) -> InviteRefused:
    return InviteRefused(
        InviteFault.TRUNCATED,
        f"The invite token is cut off: {missing} of its characters are missing. Copy it again, all of it.",
    )


def expired(invite: Invite) -> InviteRefused:
    when = f"{datetime.fromtimestamp(invite.expires, UTC):%Y-%m-%d %H:%M} UTC"
    return InviteRefused(
        InviteFault.EXPIRED,
        f"The invite token expired on {when}. Ask for a new one: `mesh-llm invite` on a node of that mesh.",
    )


def foreign(invite: Invite, mesh: MeshId) -> InviteRefused:
    return InviteRefused(
        InviteFault.FOREIGN,
        f"The invite token is for mesh {short(invite.mesh)}, but this home belongs to mesh {short(mesh)}. "
        "Give another home with --home; to leave the old mesh for good, delete mesh.json in this one.",
    )
