"""This node as a member of its mesh: the machines, wired to one another and to the network.

Peers see it as `peers.Household`; the node asks it who else is there, opens tunnels through it, and hands it
what a person wants (invite, revoke, kick). Policy is in the machines: `admission.py`, `membership.py`,
`adverts.py`.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager, suppress
from functools import partial
from random import Random

from mesh_llm.core.errors import MeshError
from mesh_llm.core.ids import MeshId, NodeId, short
from mesh_llm.mesh.address_book import AddressBook
from mesh_llm.mesh.admission import hello
from mesh_llm.mesh.admission.admission import Admission
from mesh_llm.mesh.admission.hello import Hello, Refusal
from mesh_llm.mesh.admission.ledger import Ledger
from mesh_llm.mesh.admission.notices import Effect as NoticeEffect
from mesh_llm.mesh.admission.notices import Forward
from mesh_llm.mesh.admission.signatures import NodeKey
from mesh_llm.mesh.description import Description
from mesh_llm.mesh.doorkeeping import Doorkeeping
from mesh_llm.mesh.exchanging import EXCHANGE_SECONDS_MAX
from mesh_llm.mesh.gossip.advert import DOMAIN as ADVERT_DOMAIN
from mesh_llm.mesh.gossip.advert import Advert
from mesh_llm.mesh.gossip.adverts import Adverts, OwnChanged
from mesh_llm.mesh.gossip.leaving import signed_leave
from mesh_llm.mesh.gossip.membership import Membership
from mesh_llm.mesh.gossip.membership_events import (
    Doubted,
    Expelled,
    Introduced,
    Leaving,
    Member,
    RecordsChanged,
)
from mesh_llm.mesh.gossip.news import Health
from mesh_llm.mesh.gossip.probes import some
from mesh_llm.mesh.gossiping import Gossiping
from mesh_llm.mesh.neighbour import Neighbour, Reach
from mesh_llm.mesh.noticing import Noticing
from mesh_llm.mesh.peers import Peers
from mesh_llm.mesh.transport import (
    Addresses,
    FastPath,
    Kind,
    PeerError,
    Refused,
    Stream,
    Traffic,
    Transport,
    Unreachable,
)
from mesh_llm.runtime.bell import Bell
from mesh_llm.runtime.clock import Clock

logger = logging.getLogger(__name__)

INTRODUCTIONS_APART_S = 15.0
"""The address book speaks again this often: whoever was forgotten, or met nobody, is found in the end."""

INTRODUCTIONS_MAX = 8
"""At once, after the first time: most of those who are not there never come back."""

ADVERTS_APART_S = 0.5
"""Between two versions of this node's own advert: each goes to everybody."""

ADDRESSES_APART_S = 5.0
"""Between two looks at where this node can be reached."""

LEDGER_APART_S = 5.0
"""Between two writes of the address book in the ledger. What admission decides is written at once."""


class Mesh:
    def __init__(
        self,
        key: NodeKey,
        ledger: Ledger,
        transport: Transport,
        *,
        clock: Clock,
        chance: Random,
        keep: Callable[[Ledger], None],
        describe: Callable[[], Description],
        answers: Mapping[Kind, Callable[[Stream], Awaitable[None]]],
        busy: Callable[[], int],
        changes: Bell,
    ) -> None:
        """`keep` writes the ledger to the home. `answers`: what members may ask beside the mesh's own kinds;
        the rest is refused. `describe` is asked again whenever `changes` rings, and `changes` is rung when
        members come, go or change. `busy`: requests answered here now."""
        self._key = key
        self._clock = clock
        self._chance = chance
        self._keep = keep
        self._describe = describe
        self._answers = answers
        self._changes = changes
        self._transport = transport
        self._admission = Admission(key, ledger)
        self._book = AddressBook(
            member
            for member in ledger.members
            if self._admission.judge(member.certificate, member.node) is None
        )
        self._started = int(clock.epoch())
        self._peers = Peers(transport, self, clock)
        self._noticing = Noticing(self._admission, self._peers, self._perform)
        self._shut_out: set[NodeId] = set()
        """Members that say this node is none."""
        self.removed = asyncio.Event()
        """Set when nobody is left who takes this node for a member."""
        self._gossiping = Gossiping(
            Membership(key.node, chance, incarnation=self._started),
            Adverts(key.node, chance, partial(key.sign, ADVERT_DOMAIN), self._admit_advert),
            self._peers,
            clock,
            busy,
            self._member_changed,
            self._advert_changed,
            self._noticing.reconcile,
        )
        self._door = Doorkeeping(
            self._admission,
            self._gossiping,
            transport,
            clock,
            chance,
            self._those_who_stay,
            self._write_now,
        )

    def __repr__(self) -> str:
        return f"<Mesh {short(self.id)} as {short(self.me)}>"

    @property
    def me(self) -> NodeId:
        return self._key.node

    @property
    def key(self) -> NodeKey:
        """To sign in this node's name."""
        return self._key

    @property
    def id(self) -> MeshId:
        return self._admission.mesh

    @property
    def addresses(self) -> Addresses:
        return self._transport.addresses

    @property
    def traffic(self) -> Traffic:
        return self._transport.traffic

    async def run(self) -> None:
        """Until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            self._gossiping.begin(tasks)
            self._noticing.begin(tasks)
            self._gossiping.tell(RecordsChanged(self._admission.notices.digest()))
            try:
                tasks.create_task(self._peers.run(), name="peers")
                tasks.create_task(self._describe_self(), name="advert")
                tasks.create_task(self._introduce(), name="introductions")
                tasks.create_task(self._keep_ledger(), name="ledger")
                await asyncio.Event().wait()
            finally:
                self._gossiping.end()

    async def leave(self) -> None:
        """Tell the others, and close what is open. `run` may be cancelled after it."""
        membership = self._gossiping.membership
        self._gossiping.tell(Leaving(signed_leave(self._key, membership.incarnation)))
        self._write()
        await self._transport.close()

    @property
    def protocol_errors(self) -> int:
        """How often peers broke the protocol."""
        return self._peers.protocol_errors

    # -- for the node and its gateway ----------------------------------------------------------------------

    def neighbours(self) -> tuple[Neighbour, ...]:
        """Every other living member that has said what it is."""
        machine = self._gossiping.membership
        found: list[Neighbour] = []
        for node in sorted(set(machine.living()) - self._shut_out):
            member, advert = machine.member(node), self._gossiping.adverts.get(node)
            if member is not None and advert is not None:
                found.append(Neighbour(member, advert, machine.busy_of.get(node, 0)))
        return tuple(found)

    def reach_of(self, node: NodeId) -> Reach | None:
        """None where no connection is open now."""
        return self._peers.reach_of(node)

    def tunnel(self, node: NodeId) -> AbstractAsyncContextManager[Stream]:
        """To the node's gateway. Raises Unreachable, Refused."""
        return self.stream(node, Kind.TUNNEL)

    def stream(self, node: NodeId, kind: Kind) -> AbstractAsyncContextManager[Stream]:
        """To another member. Raises Unreachable, Refused."""
        return self._peers.stream(node, kind)

    def doubt(self, node: NodeId) -> None:
        """A request to the node failed: see whether it lives."""
        self._gossiping.tell(Doubted(node))

    # -- what a person may want ----------------------------------------------------------------------------

    def invite(self, ttl_s: int, *, once: bool = False) -> str:
        """A new token. Raises RequestRefused, DiskFull."""
        return self._door.invite(ttl_s, once=once)

    def revoke(self, text: str) -> None:
        """`text` is a token or an invite's id. Raises InviteRefused."""
        self._perform(self._admission.revoke(text, self._clock.epoch()))

    def kick(self, node: NodeId) -> None:
        """Throw a member out. Raises RequestRefused."""
        certificates = [member.certificate for member in self._book.members()]
        self._perform(self._admission.kick(node, certificates, self._clock.epoch()))

    # -- peers.Household -----------------------------------------------------------------------------------

    def hello(self, fast_path: FastPath | None) -> bytes:
        version = self._describe().program_version
        certificate, addresses = self._admission.certificate, self._transport.addresses
        return hello.encode_hello(Hello(certificate, version, fast_path, addresses))

    def welcome(self, peer: NodeId, greeting: bytes) -> FastPath | None:
        said = hello.decode_hello(greeting)
        refusal = self._admission.judge(said.certificate, peer)
        if refusal is not None:
            raise Refused(refusal.message)
        self._shut_out.discard(peer)
        self._remember(peer, said.certificate, said.addresses)
        return said.fast_path

    def met(self, peer: NodeId) -> None:
        self._gossiping.tell(Introduced((peer,)))

    def refused(self, peer: NodeId, reason: str) -> None:
        if Refusal.of(reason) is not Refusal.EXPELLED or peer in self._shut_out:
            return
        logger.warning("%s says that this node was removed from the mesh", self.name_of(peer))
        self._shut_out.add(peer)
        if not self.neighbours():
            self.removed.set()
        self._changes.ring()

    def addresses_of(self, peer: NodeId) -> Addresses:
        """All that is known: an address may be stale, and more of them cost one packet each."""
        advert = self._gossiping.adverts.get(peer)
        told = [advert.addresses] if advert else []
        told.append(self._book.addresses_of(peer))
        direct = tuple(dict.fromkeys(address for each in told for address in each.direct))
        return Addresses(direct, next((each.relay for each in told if each.relay), None))

    async def admit(self, stream: Stream) -> None:
        await self._door.admit(stream)

    async def answer(self, stream: Stream) -> None:
        exchanges = {
            Kind.GOSSIP: self._gossiping.answer,
            Kind.NOTICE: self._noticing.take,
            Kind.RECORDS: self._noticing.answer,
        }
        if stream.kind in exchanges:
            try:
                async with asyncio.timeout(EXCHANGE_SECONDS_MAX):
                    await exchanges[stream.kind](stream)
            except TimeoutError:
                raise Unreachable(f"{short(stream.peer)} did not go on") from None
        elif stream.kind in self._answers:
            await self._answers[stream.kind](stream)
        else:
            await stream.refuse(f"This node answers no {stream.kind.name.lower()} streams.")

    def receive(self, peer: NodeId, datagram: bytes) -> None:
        self._gossiping.receive(peer, datagram)

    def lost(self, peer: NodeId, reason: str) -> None:
        self.refused(peer, reason)
        self._gossiping.tell(Doubted(peer))

    # ------------------------------------------------------------------------------------------------------

    def is_member(self, node: NodeId) -> bool:
        """Whether it may be in, living or not; this node, too."""
        return node == self.me or node in self._book.nodes()

    def names(self) -> dict[NodeId, str]:
        """Every other member that is known, living or not."""
        adverts = {node: self._gossiping.adverts.get(node) for node in self._book.nodes()}
        return {node: advert.name if advert else "" for node, advert in adverts.items()}

    def name_of(self, node: NodeId) -> str:
        advert = self._gossiping.adverts.get(node)
        return f"{advert.name} ({short(node)})" if advert and advert.name else short(node)

    def _perform(self, effects: list[NoticeEffect]) -> None:
        """Of one frame, or of one wish: all came the same way."""
        if not effects:
            return
        new = [effect for effect in effects if isinstance(effect, Forward)]
        if new:
            self._noticing.forward(tuple(effect.notice for effect in new), new[0].besides)
        self._judge_anew()
        self._write()

    def _judge_anew(self) -> None:
        """After an expulsion may have come: who is no member any more is cut off at once."""
        self._gossiping.tell(RecordsChanged(self._admission.notices.digest()))
        for member in self._book.members():
            refusal = self._admission.judge(member.certificate, member.node)
            if refusal is not None:
                logger.info("%s was removed from the mesh", self.name_of(member.node))
                self._book.remove(member.node)
                self._gossiping.tell(Expelled(member.node))
                self._peers.close(member.node, refusal.message)
        if self._admission.judge(self._admission.certificate, self.me) is not None:
            self.removed.set()
        self._changes.ring()

    def _admit_advert(self, advert: Advert) -> None:
        refusal = self._admission.judge(advert.certificate, advert.node)
        if refusal is not None:
            raise PeerError(f"An advert of no member: {refusal.message}.")

    def _member_changed(self, member: Member) -> None:
        if member.health is Health.DEAD:  # who left closes by itself, after its last words
            self._peers.close(member.node, "dead")
        logger.info("%s is %s", self.name_of(member.node), member.health.name.lower())
        self._changes.ring()

    def _advert_changed(self, advert: Advert) -> None:
        self._remember(advert.node, advert.certificate, advert.addresses)
        self._changes.ring()

    def _remember(self, node: NodeId, certificate: bytes, addresses: Addresses) -> None:
        self._book.remember(node, certificate, addresses, self._clock.epoch())

    def _those_who_stay(self) -> list[Advert]:
        return [each.advert for each in self.neighbours() if each.advert.role != "client"]

    async def _describe_self(self) -> None:
        told: tuple[Description, Addresses] | None = None
        while True:
            now = (self._describe(), self._transport.addresses)
            if now != told:
                said, addresses = told = now
                advert = said.advert(self.me, addresses, self._admission.certificate, self._started)
                self._gossiping.tell_adverts(OwnChanged(advert))
            async with asyncio.TaskGroup() as both:  # what rings meanwhile is not missed
                both.create_task(asyncio.sleep(ADVERTS_APART_S))
                both.create_task(self._wait_for_change())

    async def _wait_for_change(self) -> None:
        with suppress(TimeoutError):  # addresses change without a bell
            async with asyncio.timeout(ADDRESSES_APART_S):
                await self._changes.wait_for_ring()

    async def _introduce(self) -> None:
        self._gossiping.tell(Introduced(self._book.nodes()))
        while True:
            await asyncio.sleep(INTRODUCTIONS_APART_S)
            living = set(self._gossiping.membership.living())
            gone = [node for node in self._book.nodes() if node not in living]
            self._gossiping.tell(Introduced(tuple(some(self._chance, gone, INTRODUCTIONS_MAX))))

    async def _keep_ledger(self) -> None:
        while True:
            await asyncio.sleep(LEDGER_APART_S)
            if self._book.changed:
                self._write()

    def _write(self) -> None:
        """Tries again later where the disk is full: a node does not end for that."""
        try:
            self._write_now()
        except MeshError as error:
            logger.error("%s", error)

    def _write_now(self) -> None:
        living = self._gossiping.membership.living()
        ledger = self._book.written(self._admission.ledger, living, self._clock.epoch())
        try:
            self._keep(ledger)
        except MeshError:
            self._book.changed = True
            raise
