"""What one node believes of the mesh at this moment, and what it wants done about it.

The ground that `membership.py` (what is heard) and `prober.py` (what is asked) stand on. Changes of belief go
through here, so that each is told to the shell and to the others once.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from random import Random

from mesh_llm.core.ids import NodeId
from mesh_llm.mesh.gossip.comparison import Comparison
from mesh_llm.mesh.gossip.membership_events import (
    Effect,
    Member,
    MemberChanged,
    MemberForgotten,
    SendMessage,
    StartTimer,
    Timer,
)
from mesh_llm.mesh.gossip.messages import Message
from mesh_llm.mesh.gossip.news import Health, Leave, News
from mesh_llm.mesh.gossip.roster import Roster
from mesh_llm.mesh.gossip.rumours import Rumours
from mesh_llm.mesh.gossip.wire import NEWS_ROOM_BYTES, bytes_of

GONE_TOLD_S = 120.0
"""For so long a full exchange mentions who has gone: long enough to be missed by nobody."""


@dataclass(frozen=True, slots=True)
class Timing:
    """Seconds. On a network with round trips under `ack` and no loss nobody is suspected."""

    probe: float = 1.0
    ack: float = 0.75
    report: float = 0.75
    urgent: float = 1.0
    """For an answer by whichever way, where helpers are asked along with the member."""
    suspicion: float = 3.0
    gossip: float = 0.2
    asleep: float = 2.0
    """Without a ProbeDue for so long this process stood still: that others were silent is its own fault."""


class Outlook:
    def __init__(self, me: NodeId, incarnation: int, chance: Random, timing: Timing) -> None:
        self.me = me
        self.incarnation = incarnation
        self.version = 0
        self.busy = 0
        self.chance = chance
        self.timing = timing
        self.now = 0.0
        self.roster = Roster()
        self.rumours = Rumours()
        self.comparison = Comparison()
        self.expelled: set[NodeId] = set()
        self.heard: dict[NodeId, float] = {}
        """When each last spoke to this node itself."""
        self.leave: Leave | None = None
        """This node's own, once it goes."""
        self._records = b""
        self._effects: list[Effect] = []

    # -- what is wanted -----------------------------------------------------------------------------------

    def do(self, effect: Effect) -> None:
        self._effects.append(effect)

    def send(self, to: NodeId, message: Message) -> None:
        self.do(SendMessage(to, message))

    def start_timer(self, after: float, timer: Timer) -> None:
        self.do(StartTimer(after, timer))

    def effects(self) -> list[Effect]:
        """All since the last call."""
        effects, self._effects = self._effects, []
        return effects

    # -- what is believed ---------------------------------------------------------------------------------

    def admit(self, node: NodeId, incarnation: int, version: int) -> bool:
        """A new member that lives; False where the mesh is full."""
        if not self.roster.has_room():
            return False
        member = Member(node, incarnation, Health.ALIVE, version, self.now)
        self.put(member)
        self.do(MemberChanged(member))
        return True

    def change(self, member: Member, health: Health) -> None:
        signature = member.signature if health is Health.LEFT else b""
        member = replace(member, health=health, since=self.now, signature=signature)
        self.put(member)
        self.do(MemberChanged(member))
        self.pass_on(member.node)

    def put(self, member: Member) -> None:
        if self.roster.put(member):
            self.comparison.changed()

    def own_part_changed(self, *, version: int | None = None, records: bytes | None = None) -> None:
        self.version = self.version if version is None else version
        self._records = self._records if records is None else records
        self.roster.forget_digest()
        self.comparison.changed()

    def forget(self, node: NodeId) -> None:
        if node in self.roster:
            self.roster.remove(node)
            self.rumours.drop(node)
            self.heard.pop(node, None)
            self.comparison.changed()
            self.do(MemberForgotten(node))

    # -- what is told -------------------------------------------------------------------------------------

    @property
    def digest(self) -> bytes:
        return self.roster.digest(self.me, self.version, self._records)

    def own_news(self) -> News:
        if self.leave is not None:
            return News(self.me, self.leave.incarnation, Health.LEFT, self.version, self.leave.signature)
        return News(self.me, self.incarnation, Health.ALIVE, self.version)

    def pass_on(self, node: NodeId) -> None:
        """Only of whom an advert is held: others could not ask this node for it."""
        member = self.roster.get(node)
        if node == self.me:
            self.rumours.add(self.own_news())
        elif member is not None and member.version > 0:
            self.rumours.add(member.news)

    def first_hand(self, first: News | None) -> tuple[int, int, bytes, int, tuple[News, ...]]:
        """What Ping and Ack tell besides their sequence. `first`: news that must go along."""
        news = self.rumours.take(self.size, NEWS_ROOM_BYTES - (bytes_of(first) if first else 0))
        return self.incarnation, self.version, self.digest, self.busy, (first, *news) if first else news

    @property
    def size(self) -> int:
        """Of the mesh, with this node."""
        return len(self.roster.living()) + 1

    def view(self) -> tuple[News, ...]:
        known = (member.news for member in self.roster.all() if self._worth_telling(member))
        return (self.own_news(), *known)

    def answer_to(self, members: Sequence[News]) -> tuple[News, ...]:
        mine = {news.node: news for news in self.view()}
        theirs = {news.node: news for news in members}
        for node in theirs:
            member = self.roster.get(node)
            if member is not None and member.version > 0:
                mine[node] = member.news
        return tuple(news for news in mine.values() if _is_new(news, theirs.get(news.node)))

    def _worth_telling(self, member: Member) -> bool:
        return member.version > 0 and (member.health.living or self.now - member.since <= GONE_TOLD_S)


def _is_new(mine: News, theirs: News | None) -> bool:
    """To someone who holds `theirs`."""
    if theirs is None:
        return mine.health.living
    return mine.version > theirs.version or mine.health.living != theirs.health.living
