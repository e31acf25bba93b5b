"""Who may be in: decides what the door answers, what a certificate is worth, and what members must hear.

Deciding only. Its counterparts are a joiner (`joining.py`) and each peer that says hello (`hello.py`).
Whoever acts for it (`service.py`) performs the effects, and writes `ledger` to the home before an answer goes
out: a single-use invite is spent even if this node dies then.
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import replace
from random import Random

from mesh_llm.core.errors import InviteFault, InviteRefused, RequestRefused
from mesh_llm.core.ids import MeshId, NodeId
from mesh_llm.mesh.admission import certificates, invites
from mesh_llm.mesh.admission.certificates import INVITE_ID_BYTES, LINKS_MAX, REPLACED
from mesh_llm.mesh.admission.expulsions import Expulsions, descendants
from mesh_llm.mesh.admission.hello import Refusal
from mesh_llm.mesh.admission.invites import (
    SKEW_SECONDS_MAX,
    TTL_SECONDS_DEFAULT,
    TTL_SECONDS_MAX,
    Door,
    Invite,
)
from mesh_llm.mesh.admission.joining import Admitted, Declined, JoinRequest, refused
from mesh_llm.mesh.admission.ledger import INVITES_MAX, IssuedInvite, Ledger, UsedInvite
from mesh_llm.mesh.admission.notices import (
    Effect,
    NoticeAccepted,
    NoticeReceived,
    Notices,
    expulsion,
    revocation,
)
from mesh_llm.mesh.admission.signatures import NODE_BYTES, NodeKey
from mesh_llm.mesh.transport import PeerError


class Admission:
    def __init__(self, key: NodeKey, ledger: Ledger) -> None:
        """The ledger's certificate must be the key's: `ledger_file.py` sees to that."""
        self._key = key
        self._ledger = ledger
        self._certificate = certificates.decode(ledger.certificate)
        self.mesh: MeshId = self._certificate.mesh
        self.notices = Notices(self.mesh, ledger.notices)
        self._expulsions = Expulsions(self.notices.expulsions())

    @property
    def me(self) -> NodeId:
        return self._key.node

    @property
    def certificate(self) -> bytes:
        return self._ledger.certificate

    @property
    def ledger(self) -> Ledger:
        """As it is to be written now. The members in it are as they were given: `service.py` knows newer."""
        return replace(self._ledger, notices=self.notices.all())

    def handle(self, event: NoticeReceived) -> list[Effect]:
        """Raises PeerError for a notice that is damaged, forged or another mesh's."""
        effects = self.notices.handle(event)
        if any(isinstance(effect, NoticeAccepted) for effect in effects):
            self._expulsions = Expulsions(self.notices.expulsions())
        return effects

    def judge(self, certificate: bytes, node: NodeId) -> Refusal | None:
        """Whether `node`, which the transport has verified, is a member; None if it is."""
        try:
            standing = certificates.verified(certificate)
        except PeerError:
            return Refusal.DAMAGED
        if standing.mesh != self.mesh:
            return Refusal.FOREIGN
        if standing.node != node:
            return Refusal.NOT_YOURS
        return Refusal.EXPELLED if self._expulsions.out(standing) else None

    def answer(self, join: JoinRequest, sender: NodeId, now: float) -> Admitted | Declined:
        """To somebody who wants to be a member. Write `ledger` before this goes out."""
        try:
            invite = invites.parse(join.token, now, self.mesh)
            self._check(invite, sender)
            certificate = self._admit(invite, sender, now)
        except InviteRefused as no:
            return Declined(no.fault, str(no))
        return Admitted(certificate, self.notices.all())

    def invite(
        self,
        doors: Sequence[Door],
        now: float,
        chance: Random,
        *,
        ttl_s: int = TTL_SECONDS_DEFAULT,
        once: bool = False,
    ) -> str:
        """A new token. The first door is this node's. Raises RequestRefused."""
        still = _live(self._ledger.issued, now)
        self._may_invite(ttl_s, len(still))
        identity = chance.randbytes(INVITE_ID_BYTES)
        issued = IssuedInvite(identity, int(now), int(now) + ttl_s, once)
        self._ledger = replace(self._ledger, issued=(*still, issued))
        return invites.make(
            self._key, self.certificate, doors, identity, issued=now, expires=issued.expires, once=once
        )

    def revoke(self, token: str, now: float) -> list[Effect]:
        """Any member may revoke any invite, by its token or its id in hexadecimal. Raises InviteRefused where
        it is neither, or another mesh's."""
        if re.fullmatch(f"[0-9a-fA-F]{{{2 * INVITE_ID_BYTES}}}", token):
            return self._revoke(bytes.fromhex(token), now)
        invite = invites.read(token)
        if invite.mesh != self.mesh:
            raise invites.foreign(invite, self.mesh)
        return self._revoke(invite.id, now)

    def kick(self, node: NodeId, members: Iterable[bytes], now: float) -> list[Effect]:
        """Throw a node out. `members` are the certificates of all that are known, checked by `judge` before:
        those whom the node let in stay. Raises RequestRefused for this node itself, and for what is no id."""
        if node == self.me:
            raise RequestRefused(
                "A node does not kick itself: stop it to leave the mesh; `mesh-llm rotate-key` replaces "
                "its key."
            )
        if not re.fullmatch(f"[0-9a-f]{{{2 * NODE_BYTES}}}", node):
            raise RequestRefused("A node's id has 64 hexadecimal digits: `mesh-llm status` shows them.")
        standings = tuple(certificates.verified(certificate) for certificate in members)
        effects = self._expel(node, descendants(node, standings), now)
        for standing in standings:
            if standing.node == node and standing.invite not in (None, REPLACED):
                effects += self._revoke(standing.invite, now)
        return effects

    def _expel(self, node: NodeId, spared: frozenset[NodeId], now: float) -> list[Effect]:
        """What the node said of others stands: it would become void if this node is the more senior one."""
        theirs = [
            each
            for each in self._expulsions.effective()
            if each.by.node == node and each.expelled not in (node, self.me)
        ]
        effects = self._say(expulsion(self._key, self.certificate, node, spared, now))
        for each in theirs:
            effects += self._say(expulsion(self._key, self.certificate, each.expelled, each.spared, now))
        return effects

    def _revoke(self, invite: bytes, now: float) -> list[Effect]:
        if self.notices.revoked(invite):
            return []
        return self._say(revocation(self._key, self.certificate, invite, now))

    def _say(self, notice: bytes) -> list[Effect]:
        return self.handle(NoticeReceived(notice, None))

    def _may_invite(self, ttl_s: int, live: int) -> None:
        if not 0 < ttl_s <= TTL_SECONDS_MAX:
            raise RequestRefused(
                f"An invite can be good for 1 second to {TTL_SECONDS_MAX // 86_400} days: "
                "write for example --ttl 7d."
            )
        if len(self._certificate.links) >= LINKS_MAX:
            raise RequestRefused(
                f"This node is {LINKS_MAX} invitations away from the founder of the mesh and can invite "
                "nobody: make the invite on another node."
            )
        if live >= INVITES_MAX:
            raise RequestRefused(
                f"{live} invites of this node have not expired yet: revoke some, or give the next ones "
                "a shorter --ttl."
            )

    def _check(self, invite: Invite, sender: NodeId) -> None:
        """What only members can know of a token. Raises InviteRefused."""
        if self.notices.revoked(invite.id):
            raise refused(InviteFault.REVOKED)
        if self._expulsions.out(certificates.verified(invite.certificate)):
            raise refused(InviteFault.EXPELLED)
        if self._expulsions.named(sender):
            raise refused(InviteFault.EXPELLED)
        if invite.once and invite.issuer != self.me:
            raise refused(InviteFault.UNREACHABLE)

    def _admit(self, invite: Invite, sender: NodeId, now: float) -> bytes:
        """The sender's certificate. Raises InviteRefused."""
        if not invite.once:
            return self._vouch(invite, sender, now)
        for used in self._ledger.used:
            if used.id == invite.id and used.node != sender:
                raise refused(InviteFault.USED)
            if used.id == invite.id:
                return used.certificate
        certificate = self._vouch(invite, sender, now)
        self._spend(invite, sender, certificate, now)
        return certificate

    def _vouch(self, invite: Invite, sender: NodeId, now: float) -> bytes:
        """Somebody to whom this node owes its own membership, and who lost its ledger, gets that back."""
        known = certificates.part_of(self._certificate, sender)
        if known is not None:
            return certificates.encode(known)
        if not certificates.can_extend(self._certificate, sender):
            raise refused(InviteFault.UNREACHABLE)
        return certificates.encode(certificates.extend(self._certificate, self._key, sender, now, invite.id))

    def _spend(self, invite: Invite, sender: NodeId, certificate: bytes, now: float) -> None:
        still = tuple(used for used in self._ledger.used if now <= used.expires + SKEW_SECONDS_MAX)
        used = UsedInvite(invite.id, sender, invite.expires, certificate)
        self._ledger = replace(self._ledger, used=(*still, used))


def _live(issued: tuple[IssuedInvite, ...], now: float) -> tuple[IssuedInvite, ...]:
    return tuple(each for each in issued if now <= each.expires + SKEW_SECONDS_MAX)
