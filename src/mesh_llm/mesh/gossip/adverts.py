"""Whose advert is held, in which version, and what is fetched from whom. Decides; `gossiping.py` acts.

Its counterpart is `membership.py`: what that hears of newer versions (`WantAdvert`) comes here as Announced,
and what is held here (`AdvertChanged`, `AnnounceOwn`) goes there as AdvertHeld.

Whoever says that it holds a version is asked for it; who does not deliver is not believed for a while, the
next one is asked, and when nobody is left the claim is forgotten. What is held is always signed and admitted.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from random import Random

from mesh_llm.core.ids import NodeId
from mesh_llm.mesh.gossip.advert import Advert, Sign, SignedAdvert, read, sign_advert
from mesh_llm.mesh.gossip.exchange import WANTED_MAX
from mesh_llm.mesh.gossip.membership import JUMP_MAX
from mesh_llm.mesh.gossip.roster import GONE_MAX, MEMBERS_MAX
from mesh_llm.mesh.transport import PeerError

HELD_MAX = MEMBERS_MAX + GONE_MAX
WANTS_MAX = HELD_MAX
SOURCES_MAX = 8
"""Of one version: more would hardly do better."""
FETCHES_MAX = 8
"""Peers asked at once."""
DISTRUST_MIN_S = 1.0
DISTRUST_MAX_S = 60.0
"""That a peer's announcements are not listened to after one that it did not make good; doubled each time."""
FIRST_VERSION_MAX = 2**16
"""A node begins anywhere below: two lives of a key then rarely give one number to two adverts."""


@dataclass(frozen=True, slots=True)
class Announced:
    """`by` says that it holds this version of the node's advert."""

    node: NodeId
    version: int
    by: NodeId


@dataclass(frozen=True, slots=True)
class Received:
    """An answer to Fetch; `handle` raises PeerError if it is forged or not admitted."""

    signed: SignedAdvert
    by: NodeId


@dataclass(frozen=True, slots=True)
class FetchEnded:
    """The peer has sent all it would, or failed: what did not come is asked of others."""

    by: NodeId


@dataclass(frozen=True, slots=True)
class OwnChanged:
    """This node has something new to say of itself; node and version are filled in."""

    advert: Advert


@dataclass(frozen=True, slots=True)
class Forgotten:
    """Membership forgot the node (`MemberForgotten`)."""

    node: NodeId


AdvertEvent = Announced | Received | FetchEnded | OwnChanged | Forgotten


@dataclass(frozen=True, slots=True)
class Fetch:
    """Ask the peer for the adverts of these nodes, in one exchange; hand in each that comes as Received, then
    FetchEnded. One at a time for each peer."""

    nodes: tuple[NodeId, ...]
    from_peer: NodeId


@dataclass(frozen=True, slots=True)
class AdvertChanged:
    """A newer advert of another node is held: tell membership (AdvertHeld)."""

    advert: Advert


@dataclass(frozen=True, slots=True)
class AnnounceOwn:
    """This node's own advert has a new version: tell membership (AdvertHeld)."""

    node: NodeId
    version: int


AdvertEffect = Fetch | AdvertChanged | AnnounceOwn


def admit_all(advert: Advert) -> None:
    """Where nobody is refused."""


@dataclass(frozen=True, slots=True)
class _Distrust:
    until: float
    seconds: float


class Adverts:
    def __init__(
        self, me: NodeId, chance: Random, sign: Sign, admit: Callable[[Advert], None] = admit_all
    ) -> None:
        """`admit` raises PeerError for an advert whose certificate does not make its node a member."""
        self.me = me
        self._chance = chance
        self._sign = sign
        self._admit = admit
        self._held: dict[NodeId, tuple[Advert, SignedAdvert]] = {}
        self._claims: dict[NodeId, dict[NodeId, int]] = {}
        """Of each node, which version newer than the one held who says to have."""
        self._asked: dict[NodeId, dict[NodeId, int]] = {}
        """What each peer was asked for: the node, and the version that it had claimed by then."""
        self._distrusted: dict[NodeId, _Distrust] = {}

    def handle(self, event: AdvertEvent, now: float) -> list[AdvertEffect]:
        """Raises PeerError for Received of what is forged, not admitted or was not asked for."""
        match event:
            case Announced(node, version, by):
                return self._announced(node, version, by, now)
            case Received(signed, by):
                return self._received(signed, by)
            case FetchEnded(by):
                return self._ended(by, now)
            case OwnChanged(advert):
                return self._say(advert)
            case Forgotten(node):
                self._held.pop(node, None)
                self._claims.pop(node, None)
                self._distrusted.pop(node, None)
                return []

    # -- what the shell may ask ---------------------------------------------------------------------------

    def get(self, node: NodeId) -> Advert | None:
        held = self._held.get(node)
        return None if held is None else held[0]

    def answer_to(self, nodes: tuple[NodeId, ...]) -> Iterator[SignedAdvert]:
        """Of those nodes, what is held."""
        for node in nodes:
            if node in self._held:
                yield self._held[node][1]

    @property
    def waiting(self) -> int:
        """Nodes of which a newer advert is said to exist."""
        return len(self._claims)

    # -- events -------------------------------------------------------------------------------------------

    def _announced(self, node: NodeId, version: int, by: NodeId, now: float) -> list[AdvertEffect]:
        if node == self.me:
            return self._outdo(version)
        distrust = self._distrusted.get(by)
        if version <= self._version(node) or (distrust is not None and now < distrust.until):
            return []
        if node not in self._claims and len(self._claims) >= WANTS_MAX:
            return []
        claims = self._claims.setdefault(node, {})
        if by in claims or len(claims) < SOURCES_MAX:
            claims[by] = max(version, claims.get(by, 0))
        return self._fetches()

    def _received(self, signed: SignedAdvert, by: NodeId) -> list[AdvertEffect]:
        advert = read(signed)
        node = advert.node
        if node not in self._asked.get(by, ()):
            raise PeerError("An advert that nobody asked for.")
        if node == self.me or advert.version <= self._version(node):
            return []
        self._admit(advert)
        if node not in self._held and len(self._held) >= HELD_MAX:
            return []
        self._held[node] = (advert, signed)
        self._settle(node)
        return [AdvertChanged(advert)]

    def _ended(self, by: NodeId, now: float) -> list[AdvertEffect]:
        broken = False
        for node, version in self._asked.pop(by, {}).items():
            if self._version(node) < version:
                broken = True
                self._claims.get(node, {}).pop(by, None)
                self._settle(node)
        self._judge(by, now, kept=not broken)
        return self._fetches()

    def _settle(self, node: NodeId) -> None:
        """Claims that are met are forgotten."""
        held = self._version(node)
        claims = {by: version for by, version in self._claims.pop(node, {}).items() if version > held}
        if claims:
            self._claims[node] = claims

    def _judge(self, peer: NodeId, now: float, *, kept: bool) -> None:
        before = self._distrusted.pop(peer, None)
        if not kept:
            seconds = DISTRUST_MIN_S if before is None else min(2 * before.seconds, DISTRUST_MAX_S)
            self._distrusted[peer] = _Distrust(now + seconds, seconds)

    def _say(self, advert: Advert) -> list[AdvertEffect]:
        held = self.get(self.me)
        version = self._chance.randrange(1, FIRST_VERSION_MAX) if held is None else held.version
        if held is not None and replace(advert, node=self.me, version=version) == held:
            return []
        return self._publish(advert, version if held is None else version + 1)

    def _outdo(self, version: int) -> list[AdvertEffect]:
        """An earlier life of this node said more than this one has: it goes on above."""
        held = self.get(self.me)
        if held is None or not 0 < version - held.version <= JUMP_MAX:
            return []
        return self._publish(held, version + self._chance.randrange(1, FIRST_VERSION_MAX))

    def _publish(self, advert: Advert, version: int) -> list[AdvertEffect]:
        advert = replace(advert, node=self.me, version=version)
        self._held[self.me] = (advert, sign_advert(advert, self._sign))
        return [AnnounceOwn(self.me, version)]

    def _version(self, node: NodeId) -> int:
        held = self.get(node)
        return 0 if held is None else held.version

    def _fetches(self) -> list[AdvertEffect]:
        """One exchange with each peer at a time, each advert from one peer at a time."""
        awaited = {node for nodes in self._asked.values() for node in nodes}
        batches: dict[NodeId, list[NodeId]] = {}
        for node, claims in self._claims.items():
            free = (source for source in claims if self._has_room_for(source, batches))
            source = None if node in awaited else next(free, None)
            if source is not None:
                batches.setdefault(source, []).append(node)
        for source, nodes in batches.items():
            self._asked[source] = {node: self._claims[node][source] for node in nodes}
        return [Fetch(tuple(nodes), source) for source, nodes in batches.items()]

    def _has_room_for(self, source: NodeId, batches: dict[NodeId, list[NodeId]]) -> bool:
        if source in self._asked:
            return False
        if source in batches:
            return len(batches[source]) < WANTED_MAX
        return len(self._asked) + len(batches) < FETCHES_MAX
