"""Who is in the mesh and lives, decided from what this node sees and hears. Its counterpart is
`gossiping.py`, which carries messages and keeps the timers; nothing here reads a clock or a socket.

Own evidence goes before hearsay. A member is ALIVE as long as it answers: each second one is asked (Ping,
Ack); one that does not answer is asked through three others (PingRequest, PingReport); one that is silent
even so is SUSPECT, asked each second, and after three seconds DEAD. Any message from it, or a report that it
has answered, makes it ALIVE. Hearing that a member is suspect or dead, or that a dead one lives, only makes
this node ask for itself, so a liar costs a few datagrams and buries nobody. LEFT alone is believed on
hearing, because it is signed by who left; it ends with a message of a later incarnation.

What can never happen: this node in its own roster; an incarnation that goes back; a stranger that hearsay
alone made a member (`WantAdvert` first, then AdvertHeld).
"""

from collections.abc import Sequence
from dataclasses import replace
from random import Random

from mesh_llm.core.ids import NodeId
from mesh_llm.mesh.gossip.leaving import is_genuine
from mesh_llm.mesh.gossip.membership_events import (
    AckOverdue,
    AdvertHeld,
    Doubted,
    Effect,
    Event,
    Expelled,
    GossipDue,
    Introduced,
    Leaving,
    Member,
    MessageReceived,
    ProbeDue,
    RecordsChanged,
    ReportOverdue,
    Started,
    SuspicionExpired,
    Synchronise,
    Timer,
    TimerFired,
    ViewReceived,
    WantAdvert,
)
from mesh_llm.mesh.gossip.messages import Ack, Gossip, Message, Ping, PingReport, PingRequest
from mesh_llm.mesh.gossip.news import NUMBER_MAX, Genuine, Health, Leave, News
from mesh_llm.mesh.gossip.outlook import Outlook, Timing
from mesh_llm.mesh.gossip.prober import Prober
from mesh_llm.mesh.gossip.probes import some

GOSSIP_TARGETS = 3
JUMP_MAX = 2**28
"""By which others can make this node raise its incarnation: years of seconds, and no way to exhaust it."""
FAREWELLS_MAX = 64
"""Members that hear of a leave at once; they pass it on."""


class Membership:
    def __init__(
        self,
        me: NodeId,
        chance: Random,
        *,
        incarnation: int = 0,
        genuine: Genuine = is_genuine,
        timing: Timing | None = None,
    ) -> None:
        """`incarnation`: higher than in an earlier life of this key, if the caller can tell (seconds since
        the epoch do well); else others will tell."""
        self.busy_of: dict[NodeId, int] = {}
        """Requests that others are answering, as they said last."""
        self.forged_leaves = 0
        """Heard, and not believed."""
        self._outlook = Outlook(me, incarnation, chance, timing or Timing())
        self._prober = Prober(self._outlook)
        self._genuine = genuine
        self._from_view: set[NodeId] = set()
        """Whose adverts are wanted because of a full exchange: no news to the others."""
        self._met: set[NodeId] = set()
        """Gone or unknown until lately, and not asked since: their views may be wholly others."""
        self._gossiping = False

    def handle(self, event: Event, now: float) -> list[Effect]:
        """`now`: seconds, of a clock that never goes back."""
        self._outlook.now = now
        if not isinstance(event, Started):
            self._prober.wake_if_asleep()
        self._take(event)
        if self._outlook.rumours and not self._gossiping and self._outlook.roster.living():
            self._gossiping = True
            self._outlook.start_timer(
                self._outlook.chance.uniform(0, self._outlook.timing.gossip), GossipDue()
            )
        return self._outlook.effects()

    # -- what the shell may ask ---------------------------------------------------------------------------

    @property
    def me(self) -> NodeId:
        return self._outlook.me

    @property
    def incarnation(self) -> int:
        return self._outlook.incarnation

    @property
    def busy(self) -> int:
        """Requests that this node is answering: the shell sets it, others hear of it."""
        return self._outlook.busy

    @busy.setter
    def busy(self, requests: int) -> None:
        self._outlook.busy = requests

    @property
    def digest(self) -> bytes:
        return self._outlook.digest

    @property
    def news_waiting(self) -> int:
        return len(self._outlook.rumours)

    def living(self) -> tuple[NodeId, ...]:
        """Without this node, in the order of their ids; suspects are among them."""
        return self._outlook.roster.living()

    def member(self, node: NodeId) -> Member | None:
        return self._outlook.roster.get(node)

    def members(self) -> tuple[Member, ...]:
        """Without this node, the gone among them, in the order of their ids."""
        return self._outlook.roster.all()

    def view(self) -> tuple[News, ...]:
        """This node's half of a full exchange."""
        return self._outlook.view()

    def answer_to(self, members: Sequence[News]) -> tuple[News, ...]:
        """What someone with that view lacks, or sees otherwise."""
        return self._outlook.answer_to(members)

    # -- events -------------------------------------------------------------------------------------------

    def _take(self, event: Event) -> None:
        match event:
            case Started():
                self._outlook.comparison.started(self._outlook.now)
                self._prober.start()
            case Introduced(nodes):
                self._outlook.expelled.difference_update(nodes)  # an expulsion may turn out void
                self._introduce(nodes)
            case MessageReceived(sender, message):
                if self._is_listened_to(sender):
                    self._receive(sender, message)
            case ViewReceived(sender, members):
                if self._is_listened_to(sender):
                    self._hear(sender, members, in_view=True)
            case TimerFired(timer):
                self._expire(timer)
            case _:
                self._take_from_shell(event)

    def _take_from_shell(self, event: Doubted | AdvertHeld | RecordsChanged | Leaving | Expelled) -> None:
        match event:
            case Doubted(node):
                member = self.member(node)
                if member is not None and member.health.living:
                    self._prober.doubt(node)
            case AdvertHeld(node, version):
                self._hold(node, version)
            case RecordsChanged(digest):
                self._outlook.own_part_changed(records=digest)
            case Leaving(leave):
                self._part(leave)
            case Expelled(node):
                self._outlook.expelled.add(node)
                self._forget(node)

    def _expire(self, timer: Timer) -> None:
        match timer:
            case ProbeDue():
                self._tick()
            case AckOverdue(sequence):
                self._prober.ack_overdue(sequence)
            case ReportOverdue(sequence):
                self._prober.report_overdue(sequence)
            case SuspicionExpired(node, suspicion):
                self._prober.suspicion_expired(node, suspicion)
            case GossipDue():
                self._gossip()

    def _is_listened_to(self, node: NodeId) -> bool:
        return node != self.me and node not in self._outlook.expelled

    def _introduce(self, nodes: tuple[NodeId, ...]) -> None:
        """Nobody is taken to live on somebody's word: until they answer they count among the dead."""
        for node in nodes:
            member = self.member(node)
            if not self._is_listened_to(node) or (member is not None and member.health.living):
                continue
            if member is None:
                self._outlook.put(Member(node, 0, Health.DEAD, 0, self._outlook.now))
            self._prober.doubt(node)

    def _hold(self, node: NodeId, version: int) -> None:
        member = self.member(node)
        if node == self.me:
            self._outlook.own_part_changed(version=version)
        elif member is not None:
            self._outlook.put(replace(member, version=max(version, member.version)))
        elif self._is_listened_to(node):
            self._outlook.admit(node, 0, version)
        if node not in self._from_view:
            self._outlook.pass_on(node)
        self._from_view.discard(node)

    def _part(self, leave: Leave) -> None:
        self._outlook.leave = leave
        self._outlook.pass_on(self.me)
        for node in some(self._outlook.chance, self.living(), FAREWELLS_MAX):
            self._outlook.send(node, Gossip((self._outlook.own_news(),)))

    def _tick(self) -> None:
        if self._outlook.leave is not None:
            return
        for node in self._outlook.roster.forgettable(self._outlook.now):
            self._forget(node)
        self._prober.tick()

    def _forget(self, node: NodeId) -> None:
        self._prober.gone(node)
        self._outlook.forget(node)
        self.busy_of.pop(node, None)
        self._from_view.discard(node)
        self._met.discard(node)

    def _gossip(self) -> None:
        outlook = self._outlook
        for node in some(outlook.chance, self.living(), GOSSIP_TARGETS):
            news = outlook.rumours.take(outlook.size)
            if news:
                outlook.send(node, Gossip(news))
        self._gossiping = bool(outlook.rumours and self.living())
        if self._gossiping:
            outlook.start_timer(outlook.timing.gossip, GossipDue())

    # -- what others say ----------------------------------------------------------------------------------

    def _receive(self, sender: NodeId, message: Message) -> None:
        match message:
            case Ping() | Ack():
                self._receive_first_hand(sender, message)
            case PingRequest(sequence, target):
                self._meet(sender)
                self._prober.ask_for(sender, sequence, target)
            case PingReport(sequence, target):
                self._meet(sender)
                self._prober.reported(sender, sequence, target)
            case Gossip(news):
                self._meet(sender)
                self._hear(sender, news)

    def _receive_first_hand(self, sender: NodeId, message: Ping | Ack) -> None:
        self._meet(sender, message.incarnation)
        member = self.member(sender)
        if member is not None and member.health.living:
            self.busy_of[sender] = message.busy
            self._hear_version(sender, message.version, sender)
            self._compare(sender, message)
        self._hear(sender, message.news)
        if isinstance(message, Ping):
            correction = self._correction(sender, message)
            self._outlook.send(sender, Ack(message.sequence, *self._outlook.first_hand(correction)))

    def _meet(self, sender: NodeId, incarnation: int = -1) -> None:
        """It spoke, so it lives. A leave ends with a message that is surely later, not with one that it
        overtook."""
        member = self.member(sender)
        if member is None:
            if self._outlook.admit(sender, max(0, incarnation), 0):
                self._met.add(sender)
            return
        if incarnation > member.incarnation:
            self._outlook.put(replace(member, incarnation=incarnation))
        elif member.health is Health.LEFT:
            return
        if not member.health.living:
            self._met.add(sender)
        self._prober.answered(sender)

    def _correction(self, sender: NodeId, said: Ping) -> News | None:
        """A node that has restarted does not know what it was before: others do."""
        member = self.member(sender)
        if member is None:
            return None
        behind = member.incarnation > said.incarnation or member.version > said.version
        return member.news if behind or not member.health.living else None

    def _compare(self, sender: NodeId, said: Ping | Ack) -> None:
        outlook = self._outlook
        met = isinstance(said, Ack) and sender in self._met
        if met:
            self._met.discard(sender)
        if said.digest == outlook.digest:
            outlook.comparison.agreed(outlook.now)
        elif outlook.comparison.differed(outlook.now, met=met):
            outlook.do(Synchronise(sender))

    def _hear(self, sender: NodeId, said: Sequence[News], *, in_view: bool = False) -> None:
        for news in said:
            if news.node == self.me:
                self._hear_of_me(sender, news)
            elif news.health is Health.LEFT:
                self._hear_leave(news)
            elif news.node not in self._outlook.expelled:
                if in_view and news.health.living:
                    self._from_view.add(news.node)
                self._hear_version(news.node, news.version, sender)
                self._hear_health(news)

    def _hear_version(self, node: NodeId, version: int, by: NodeId) -> None:
        """`by` holds it; what this node holds is what counts in its own view."""
        member = self.member(node)
        if version > (member.version if member is not None else 0):
            self._outlook.do(WantAdvert(node, version, by))

    def _hear_health(self, news: News) -> None:
        """Doubt, for good or bad, is settled by asking."""
        member = self.member(news.node)
        if member is None or news.incarnation < member.incarnation:
            return
        if member.health is Health.LEFT and news.incarnation == member.incarnation:
            return
        bad = news.health is not Health.ALIVE
        if bad == member.health.living:
            self._prober.doubt(news.node, said=news if bad else None)

    def _hear_leave(self, news: News) -> None:
        member = self.member(news.node)
        if member is None or news.incarnation < member.incarnation:
            return
        if member.health is Health.LEFT and news.incarnation == member.incarnation:
            return
        if not self._genuine(Leave(news.node, news.incarnation, news.signature)):
            self.forged_leaves += 1
            return
        self._prober.gone(news.node)
        left = replace(member, incarnation=news.incarnation, signature=news.signature)
        self._outlook.change(left, Health.LEFT)

    def _hear_of_me(self, sender: NodeId, news: News) -> None:
        """Of an earlier life, or a rumour to be refuted: both by an incarnation above it."""
        outlook = self._outlook
        if outlook.leave is not None:
            return
        refutable = news.incarnation - outlook.incarnation <= JUMP_MAX
        bad = news.health is not Health.ALIVE and news.incarnation == outlook.incarnation
        if refutable and (bad or news.incarnation > outlook.incarnation):
            outlook.incarnation = min(news.incarnation + 1, NUMBER_MAX)
            outlook.pass_on(self.me)
        if news.version > outlook.version:
            outlook.do(WantAdvert(self.me, news.version, sender))
