"""JOIN: how a stranger with a token becomes a member, and what a node does at its start.

The joiner's half is here; the door's is `admission.py`. One frame each way on a stream of its own. A peer's
words are shown to people only where this version has none of its own for them.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Annotated

from msgspec import Meta, Struct

from mesh_llm.core.errors import InviteFault, InviteRefused
from mesh_llm.core.ids import NodeId
from mesh_llm.mesh import bounded
from mesh_llm.mesh.admission import certificates, invites
from mesh_llm.mesh.admission.certificates import CERTIFICATE_BYTES_MAX, Standing
from mesh_llm.mesh.admission.invites import Invite
from mesh_llm.mesh.admission.ledger import MEMBERS_MAX, Ledger
from mesh_llm.mesh.admission.notices import NOTICE_BYTES_MAX, NOTICES_MAX, Notices
from mesh_llm.mesh.transport import FRAME_BYTES_MAX, PeerError

JOIN_REQUEST_BYTES_MAX = 64 * 1024
"""The longest token has 33,000 characters."""

ANSWER_NOTICES_BYTES_MAX = FRAME_BYTES_MAX // 4
ANSWER_ADVERTS_BYTES_MAX = FRAME_BYTES_MAX // 2
"""What has no room comes with the first exchange between members."""

MESSAGE_CHARACTERS_MAX = 400


@dataclass(frozen=True, slots=True)
class JoinRequest:
    token: str
    program_version: str


@dataclass(frozen=True, slots=True)
class Admitted:
    """Welcome. All parts are still to be checked."""

    certificate: bytes
    notices: tuple[bytes, ...] = ()
    adverts: tuple[bytes, ...] = ()
    """Of members, as frames of gossip (`exchange.py`), so that the newcomer can reach more than its door."""


@dataclass(frozen=True, slots=True)
class Declined:
    fault: InviteFault | None
    """None: a reason that this version has no name for."""
    message: str


@dataclass(frozen=True, slots=True)
class Found:
    """Found a mesh of its own."""


@dataclass(frozen=True, slots=True)
class Rejoin:
    """It is a member: no token is needed, and an expired one is no matter."""


@dataclass(frozen=True, slots=True)
class Join:
    """Ask with each in turn."""

    invites: tuple[Invite, ...]


Start = Found | Rejoin | Join


class _WireRequest(Struct, frozen=True):
    token: str
    program_version: Annotated[str, Meta(max_length=64)] = ""


class _WireAnswer(Struct, frozen=True, omit_defaults=True):
    certificate: Annotated[bytes, Meta(max_length=CERTIFICATE_BYTES_MAX)] | None = None
    notices: Annotated[
        tuple[Annotated[bytes, Meta(max_length=NOTICE_BYTES_MAX)], ...], Meta(max_length=2 * NOTICES_MAX)
    ] = ()
    adverts: Annotated[tuple[bytes, ...], Meta(max_length=MEMBERS_MAX)] = ()
    fault: Annotated[str, Meta(max_length=64)] = ""
    message: Annotated[str, Meta(max_length=MESSAGE_CHARACTERS_MAX)] = ""


def encode_request(request: JoinRequest) -> bytes:
    return bounded.encode(_WireRequest(request.token, request.program_version))


def decode_request(frame: bytes) -> JoinRequest:
    """Raises PeerError."""
    wire = bounded.decode(frame, _WireRequest, bytes_max=JOIN_REQUEST_BYTES_MAX, what="A request to join")
    return JoinRequest(wire.token, wire.program_version)


def encode_answer(answer: Admitted | Declined) -> bytes:
    if isinstance(answer, Declined):
        fault = answer.fault.value if answer.fault else ""
        return bounded.encode(_WireAnswer(fault=fault, message=answer.message[:MESSAGE_CHARACTERS_MAX]))
    notices = _first(answer.notices, ANSWER_NOTICES_BYTES_MAX)
    adverts = _first(answer.adverts[:MEMBERS_MAX], ANSWER_ADVERTS_BYTES_MAX)
    return bounded.encode(_WireAnswer(answer.certificate, notices, adverts))


def decode_answer(frame: bytes) -> Admitted | Declined:
    """Raises PeerError."""
    wire = bounded.decode(
        frame, _WireAnswer, bytes_max=FRAME_BYTES_MAX, what="An answer to a request to join"
    )
    if wire.certificate is not None:
        return Admitted(wire.certificate, wire.notices, wire.adverts)
    known = wire.fault in {each.value for each in InviteFault}
    return Declined(InviteFault(wire.fault) if known else None, _printable(wire.message))


def welcomed(answer: Admitted, invite: Invite, me: NodeId) -> Standing:
    """What this node is now. Raises PeerError where the certificate is not what the invite promised, or a
    notice is damaged: then the rest of the answer is worth nothing either."""
    standing = certificates.verified(answer.certificate)
    if standing.mesh != invite.mesh or standing.node != me:
        raise PeerError("The door gave a certificate of another mesh or for another node.")
    Notices(standing.mesh, answer.notices)
    return standing


def plan_start(ledger: Ledger | None, tokens: Sequence[str], now: float) -> Start:
    """What to do with what the home remembers and the person gave. Raises InviteRefused where no token is any
    good, with the reason of the first."""
    if not tokens:
        return Found() if ledger is None else Rejoin()
    read, unreadable = _sorted(tokens, invites.read)
    if ledger is not None and any(invite.mesh == ledger.mesh for invite in read):
        return Rejoin()
    mesh = None if ledger is None or ledger.alone else ledger.mesh
    usable, spoiled = _sorted(
        [invite.token for invite in read], lambda token: invites.parse(token, now, mesh)
    )
    if not usable:
        raise [*unreadable, *spoiled][0]
    return Join(tuple(usable))


def declined(answer: Declined, invite: Invite) -> InviteRefused:
    """What to tell the person. In this version's own words, where it has some."""
    if answer.fault is None:
        return InviteRefused(
            InviteFault.UNREACHABLE,
            "The door refused for a reason that this version does not know: "
            + (answer.message or "none was given."),
        )
    if answer.fault is InviteFault.EXPIRED:
        return invites.expired(invite)
    return refused(answer.fault)


def refused(fault: InviteFault) -> InviteRefused:
    """The words for what only the mesh can know."""
    return InviteRefused(fault, _WORDS[fault])


_ASK = "Ask for a new one: `mesh-llm invite` on a node of that mesh."
_WORDS = {
    InviteFault.MALFORMED: f"The door could not read the invite token. {_ASK}",
    InviteFault.TRUNCATED: "The invite token reached the door cut off. Copy it again, all of it.",
    InviteFault.EXPIRED: f"The invite token has expired. {_ASK}",
    InviteFault.FOREIGN: f"The node at the door belongs to another mesh by now. {_ASK}",
    InviteFault.USED: f"The invite token was good for one node, and another one has used it. {_ASK}",
    InviteFault.REVOKED: f"The invite token was revoked. {_ASK}",
    InviteFault.EXPELLED: "The node that made the invite token, or this node itself, was removed from the "
    "mesh. Ask another member for a new token, and give another --home if this node was removed.",
    InviteFault.UNREACHABLE: "No node that the invite token names can be reached and let this one in. See "
    "that one of them is running and that no firewall is between; `mesh-llm invite` there makes a token with "
    "its addresses of now.",
}


def _sorted(tokens: Sequence[str], read: Callable[[str], Invite]) -> tuple[list[Invite], list[InviteRefused]]:
    good: list[Invite] = []
    bad: list[InviteRefused] = []
    for token in tokens:
        try:
            good.append(read(token))
        except InviteRefused as no:
            bad.append(no)
    return good, bad


def _first(parts: Sequence[bytes], bytes_max: int) -> tuple[bytes, ...]:
    """As many as have room."""
    kept: list[bytes] = []
    for part in parts:
        bytes_max -= len(part) + 5
        if bytes_max < 0:
            break
        kept.append(part)
    return tuple(kept)


def _printable(text: str) -> str:
    """A peer's words do not move the cursor of somebody's terminal."""
    return "".join(character if character.isprintable() else " " for character in text)
