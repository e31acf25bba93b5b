"""How a node without a membership gets one: it asks at the doors that its invites name, one after the other.

Its counterpart is the door's `admission.py`; what a start needs at all `joining.plan_start` decides.
"""

import asyncio
import logging
from collections.abc import Sequence
from contextlib import suppress

from mesh_llm.core.errors import InviteFault, InviteRefused
from mesh_llm.core.ids import MeshId, NodeId, short
from mesh_llm.mesh.admission import certificates
from mesh_llm.mesh.admission.invites import Door, Invite
from mesh_llm.mesh.admission.joining import (
    Admitted,
    Declined,
    JoinRequest,
    declined,
    decode_answer,
    encode_request,
    refused,
    welcomed,
)
from mesh_llm.mesh.admission.ledger import KnownMember, Ledger
from mesh_llm.mesh.gossip import exchange
from mesh_llm.mesh.gossip.advert import Advert, SignedAdvert, read
from mesh_llm.mesh.transport import Kind, NotWanted, PeerError, Refused, Transport, Unreachable

logger = logging.getLogger(__name__)

DOOR_SECONDS_MAX = 15.0
"""To reach a door and be answered: a connection takes 10 s at most, an answer some milliseconds."""


async def enter(invites: Sequence[Invite], transport: Transport, program_version: str, now: float) -> Ledger:
    """Tries each invite in turn, each at all its doors. Returns the ledger of the new member, or raises the
    InviteRefused of the first invite."""
    refusals: list[InviteRefused] = []
    for invite in invites:
        try:
            return await _enter_with(invite, transport, program_version, now)
        except InviteRefused as no:
            logger.warning("%s", no)
            refusals.append(no)
    raise refusals[0]


async def _enter_with(invite: Invite, transport: Transport, program_version: str, now: float) -> Ledger:
    request = encode_request(JoinRequest(invite.token, program_version))
    for door in invite.doors:
        try:
            async with asyncio.timeout(DOOR_SECONDS_MAX):
                answer = await _ask(door, request, transport)
            if isinstance(answer, Declined) and answer.fault is not InviteFault.UNREACHABLE:
                raise declined(answer, invite)
            if isinstance(answer, Admitted):
                welcomed(answer, invite, transport.me)
                return _first_ledger(answer, invite, transport.me, now)
        except (Unreachable, Refused, PeerError, TimeoutError) as error:
            logger.info("no way in at %s: %s", short(door.node), error or "it does not answer")
    raise refused(InviteFault.UNREACHABLE)


async def _ask(door: Door, request: bytes, transport: Transport) -> Admitted | Declined:
    connection = await transport.connect(door.node, door.addresses)
    try:
        async with connection.stream(Kind.JOIN) as stream:
            with suppress(NotWanted):  # it has said no before it has heard all
                await stream.send(request)
            await stream.finish()
            answer = await stream.receive()
    finally:
        connection.close("asked")
    if answer is None:
        raise PeerError("the door said nothing")
    return decode_answer(answer)


def _first_ledger(answer: Admitted, invite: Invite, me: NodeId, now: float) -> Ledger:
    """The maker of the invite, and whom the door has introduced, are the first members it knows: enough to
    find the others, also where the maker is not there."""
    members = {
        invite.issuer: KnownMember(invite.issuer, invite.certificate, invite.doors[0].addresses, int(now))
    }
    for frame in answer.adverts:
        with suppress(PeerError):
            advert = _introduced(frame, invite.mesh)
            members[advert.node] = KnownMember(advert.node, advert.certificate, advert.addresses, int(now))
    members.pop(me, None)
    return Ledger(answer.certificate, notices=answer.notices).with_members(tuple(members.values()))


def _introduced(frame: bytes, mesh: MeshId) -> Advert:
    """A member's advert. Raises PeerError where it is none."""
    signed = exchange.decode(frame)
    if not isinstance(signed, SignedAdvert):
        raise PeerError("Something else than an advert.")
    advert = read(signed)
    standing = certificates.verified(advert.certificate)
    if standing.mesh != mesh or standing.node != advert.node:
        raise PeerError("An advert of no member.")
    return advert
