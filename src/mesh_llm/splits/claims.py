"""Who leads when several nodes want the same model split. Pure: claims and the time in, a standing out.

A claim that goes further comes first (serving, leading, wanting), then more room, then the lower node id; all
who hear the same claims agree. Nobody leads before its claim has stood first for SETTLE_S, so that two nodes
that start at the same moment hear of each other before either takes memory. Where two lead all the same,
after a partition or because news was late, the later one in this order yields. Counterpart: `leases.py`, by
which a node lends memory to one leader only. How claims travel is the mesh's affair.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from mesh_llm.core.ids import NodeId
from mesh_llm.core.stages import ClaimState, SplitClaim

SETTLE_S = 3.0
"""As a rule a change of an advert is known everywhere by then (tests/simulation/test_adverts.py)."""

RANKS = {"wanting": 0, "leading": 1, "serving": 2}

Precedence = tuple[int, int, NodeId]


@dataclass(frozen=True, slots=True)
class Lead:
    """This node plans, reserves memory and serves."""


@dataclass(frozen=True, slots=True)
class Follow:
    """That one leads: give it memory if it asks, send requests to it. Who has led until now lets its answers
    end and its stages go."""

    leader: NodeId


@dataclass(frozen=True, slots=True)
class Settling:
    """Nobody leads yet: take no memory; look again when claims change, or at `until`."""

    until: float | None
    """None: another one comes first."""


Standing = Lead | Follow | Settling


def precedence(node: NodeId, claim: SplitClaim) -> Precedence:
    """The least leads."""
    return -rank(claim), -claim.room, node


def rank(claim: SplitClaim) -> int:
    """How far it has come; a state that only newer peers know is no more than a wish."""
    return RANKS.get(claim.state, 0)


def is_leading(claim: SplitClaim) -> bool:
    return rank(claim) > 0


def is_serving(claim: SplitClaim) -> bool:
    """Whether it answers requests now."""
    return rank(claim) == RANKS["serving"]


class Candidacy:
    """One node's part in it, for one model that it wants to run over several nodes."""

    def __init__(self, me: NodeId, model: str, room: int) -> None:
        """`room`: bytes that this node has for the model now; it does not change while the claim stands."""
        self._me = me
        self._model = model
        self._room = room
        self._state: ClaimState = "wanting"
        self._since: float | None = None
        """For how long the order has spoken for a change: to lead, or to give up serving."""

    @property
    def claim(self) -> SplitClaim:
        """To be put into this node's advert after each `handle` and `serving`."""
        return SplitClaim(self._model, self._state, self._room)

    def handle(self, claims: Mapping[NodeId, SplitClaim], now: float) -> Standing:
        """`claims`: of this model, of all other living members, as seen now. To be called whenever they
        change, and every second or so; `now`: seconds of a clock that never goes back."""
        first = min((precedence(node, claim) for node, claim in claims.items()), default=None)
        comes_first = first is None or precedence(self._me, self.claim) < first
        leader = None if first is None or first[0] == 0 else first[2]
        if self._state == "wanting":
            return self._want(leader, now, comes_first=comes_first)
        if comes_first or leader is None:
            self._since = None
            return Lead()
        if not self._must_yield(now):
            return Lead()
        self._become("wanting")
        return Follow(leader)

    def serving(self, answers: bool) -> None:
        """Whether the split model answers requests now; said, as often as one likes, by who carries out the
        plan of a leader."""
        reached: ClaimState = "serving" if answers else "leading"
        if self._state not in ("wanting", reached):
            self._become(reached)

    def _want(self, leader: NodeId | None, now: float, *, comes_first: bool) -> Standing:
        if leader is not None:
            self._since = None
            return Follow(leader)
        if not comes_first:
            self._since = None
            return Settling(until=None)
        if not self._has_stood(now):
            return Settling(until=(self._since or now) + SETTLE_S)
        self._become("leading")
        return Lead()

    def _must_yield(self, now: float) -> bool:
        """Who only loads yields at once, the less is loaded twice. Who serves makes sure that the other one
        lasts: giving up costs the answers of many."""
        return self._state == "leading" or self._has_stood(now)

    def _has_stood(self, now: float) -> bool:
        if self._since is None:
            self._since = now
        return now - self._since >= SETTLE_S

    def _become(self, state: ClaimState) -> None:
        self._state = state
        self._since = None
