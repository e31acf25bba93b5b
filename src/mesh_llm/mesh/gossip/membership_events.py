"""What `membership.py` is told, and what it wants done: its whole surface towards the shell.

The shell hands each event to `Membership.handle(event, now)` and carries out the effects in order.
"""

from dataclasses import dataclass

from mesh_llm.core.ids import NodeId
from mesh_llm.mesh.gossip.messages import Message
from mesh_llm.mesh.gossip.news import Health, Leave, News


@dataclass(frozen=True, slots=True)
class Member:
    """A node as this node sees it."""

    node: NodeId
    incarnation: int
    health: Health
    version: int
    """Of the advert that this node holds of it; 0 for none."""
    since: float
    """When its health became this, by this node's clock."""
    signature: bytes = b""
    """Of its leave, if it left."""

    @property
    def news(self) -> News:
        return News(self.node, self.incarnation, self.health, self.version, self.signature)


# -- timers: effects of the machine that come back as events ----------------------------------------------


@dataclass(frozen=True, slots=True)
class ProbeDue:
    """Every second, for as long as the machine runs."""


@dataclass(frozen=True, slots=True)
class AckOverdue:
    sequence: int


@dataclass(frozen=True, slots=True)
class ReportOverdue:
    sequence: int


@dataclass(frozen=True, slots=True)
class SuspicionExpired:
    node: NodeId
    suspicion: int
    """Counted: a later one is another."""


@dataclass(frozen=True, slots=True)
class GossipDue:
    pass


Timer = ProbeDue | AckOverdue | ReportOverdue | SuspicionExpired | GossipDue

# -- events -----------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Started:
    """Once, before all others."""


@dataclass(frozen=True, slots=True)
class Introduced:
    """These are admitted and may be asked whether they live: from an invite, or from the address book.
    May come again and again."""

    nodes: tuple[NodeId, ...]


@dataclass(frozen=True, slots=True)
class MessageReceived:
    """From a connection whose peer is admitted: the sender is certain."""

    sender: NodeId
    message: Message


@dataclass(frozen=True, slots=True)
class ViewReceived:
    """The sender's half of a full exchange (`Synchronise`), whoever began it."""

    sender: NodeId
    members: tuple[News, ...]


@dataclass(frozen=True, slots=True)
class TimerFired:
    timer: Timer


@dataclass(frozen=True, slots=True)
class Doubted:
    """A connection to the node was lost, or a request to it failed: look at once."""

    node: NodeId


@dataclass(frozen=True, slots=True)
class AdvertHeld:
    """This node holds that advert now and has checked its certificate. Of its own advert, too. Makes an
    unknown node a member: this is how hearsay about strangers becomes believable."""

    node: NodeId
    version: int


@dataclass(frozen=True, slots=True)
class RecordsChanged:
    """What all members should hold besides adverts (expulsions, revocations) changed here."""

    digest: bytes


@dataclass(frozen=True, slots=True)
class Leaving:
    """This node goes. Its leave must be of `Membership.incarnation`, and signed (`leaving.py`)."""

    leave: Leave


@dataclass(frozen=True, slots=True)
class Expelled:
    """The node is a member no more: what is said of it counts for nothing until it is introduced anew."""

    node: NodeId


Event = (
    Started
    | Introduced
    | MessageReceived
    | ViewReceived
    | TimerFired
    | Doubted
    | AdvertHeld
    | RecordsChanged
    | Leaving
    | Expelled
)

# -- effects ----------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class SendMessage:
    """As one datagram; dials where there is no connection. May get lost."""

    to: NodeId
    message: Message


@dataclass(frozen=True, slots=True)
class StartTimer:
    """Hand in TimerFired(timer) after so many seconds. Timers are never cancelled."""

    after: float
    timer: Timer


@dataclass(frozen=True, slots=True)
class MemberChanged:
    """Its health is another than before, or it is new."""

    member: Member


@dataclass(frozen=True, slots=True)
class MemberForgotten:
    """Gone for long, or expelled: forget its advert, too."""

    node: NodeId


@dataclass(frozen=True, slots=True)
class Synchronise:
    """Exchange full views (and records) with it over a stream: send `view()`, take what it answers as
    ViewReceived. Who is asked hands in ViewReceived and answers with `answer_to(members)`."""

    with_node: NodeId


@dataclass(frozen=True, slots=True)
class WantAdvert:
    """That node holds a newer advert than this one does: for `Adverts`, as its event Announced."""

    node: NodeId
    version: int
    from_peer: NodeId


Effect = SendMessage | StartTimer | MemberChanged | MemberForgotten | Synchronise | WantAdvert
