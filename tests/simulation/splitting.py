"""Nodes that want one model split, in a simulated mesh: a node's shell around claims, plans and leases.

Memory is lent over streams that break when their ends can no longer reach each other. Whenever some is lent:
no node holds layers of one model for two leaders, and none lends more than it has.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from itertools import combinations
from math import inf

from mesh_llm.core.ids import NodeId
from mesh_llm.core.quantities import GIB, MIB
from mesh_llm.core.stages import SplitClaim
from mesh_llm.mesh.gossip.adverts import OwnChanged
from mesh_llm.planner.split_plan import Stages
from mesh_llm.planner.split_view import SplitView, SplitWish, StageHost, pair
from mesh_llm.planner.splitting import plan
from mesh_llm.splits.claims import Candidacy, Follow, Lead, Standing
from mesh_llm.splits.leases import Lease, Leases
from tests.planner.cuttable import cuttable
from tests.simulation.mesh import SimulatedMesh, SimulatedNode

MODEL = "Big-70B:0123456789abcdef"
BIG = cuttable(40, 256 * MIB)
"""12 GB."""

LOOK_S = 0.25
GUARD_S = 4.0
"""After which a stream over a dead connection breaks."""
LOAD_S = 2.0
DRAIN_S = 3.0
AGAIN_S = 1.0
"""After a plan that came to nothing."""


@dataclass(eq=False)
class Loan:
    """A stage that `holder` holds for `leader`: both ends of the stream that it lives by."""

    leader: "Splitter"
    holder: "Splitter"
    lease: Lease
    holder_keeps: bool = False
    leader_keeps: bool = True
    silent_since: float | None = None


@dataclass(eq=False)
class Ring:
    loans: list[Loan]
    granted: int = 0
    loaded: bool = False
    broken: bool = False
    own: Lease | None = None


@dataclass(eq=False)
class Splitter:
    """One life of a node's part in it."""

    split: "SplitMesh"
    node: SimulatedNode
    room: int
    candidacy: Candidacy | None
    leases: Leases = field(default_factory=Leases)
    standing: Standing | None = None
    ring: Ring | None = None
    rings_begun: int = 0
    draining: bool = False
    again_at: float = 0.0

    @property
    def serves(self) -> bool:
        return self.ring is not None and self.ring.loaded and not self.draining

    def look(self) -> None:
        if not self.node.runs:
            return
        if not self.node.paused:
            self._decide()
        self.split.mesh.world.after(LOOK_S, self.look)

    def claims(self) -> dict[NodeId, SplitClaim]:
        adverts = (self.node.adverts.get(node) for node in self.node.membership.living())
        found = ((advert.node, claim) for advert in adverts if advert for claim in advert.claims)
        return {node: claim for node, claim in found if claim.model == MODEL}

    def _decide(self) -> None:
        if self.candidacy is None:
            return
        self.candidacy.serving(self.serves)
        before, self.standing = self.standing, self.candidacy.handle(self.claims(), self.node.now)
        self.split.mesh.world.changed |= self.standing != before
        self._publish(self.candidacy.claim)
        match self.standing:
            case Lead():
                self._lead()
            case _:
                self._yield()

    def _publish(self, claim: SplitClaim) -> None:
        held = self.node.adverts.get(self.node.id)
        if held is not None and held.claims != (claim,):
            self.split.note(f"{self.node.name} is {claim.state}")
            self.node.take_advert(OwnChanged(replace(held, claims=(claim,))))

    # -- as a leader --------------------------------------------------------------------------------------

    def _lead(self) -> None:
        world = self.split.mesh.world
        if self.draining or world.now < self.again_at:
            return
        if self.ring is None:
            self._begin()
        elif self.ring.broken:
            self._let_go()
            self.again_at = world.now + AGAIN_S * world.chance.uniform(0.5, 1.5)

    def _begin(self) -> None:
        view = self.split.view_of(self)
        planned = plan(BIG, view, SplitWish(context=4096, stages=0))
        if not isinstance(planned, Stages):
            self.again_at = self.split.mesh.world.now + AGAIN_S
            return
        *remote, head = planned.stages
        own = Lease(MODEL, self.node.id, head.need.total)
        if self.leases.ask(own, self.room, self._all_claims()) is not None:
            self.again_at = self.split.mesh.world.now + AGAIN_S
            return
        loans = [
            Loan(self, self.split.splitter(stage.node), Lease(MODEL, self.node.id, stage.need.total))
            for stage in remote
        ]
        self.ring = Ring(loans, own=own)
        self.rings_begun += 1
        self.split.note(f"{self.node.name} asks {[loan.holder.node.name for loan in loans]}")
        for loan in loans:
            self.split.ask(loan, self.ring)

    def heard(self, loan: Loan, ring: Ring, refusal: str | None) -> None:
        if ring is not self.ring:
            return
        if refusal is not None:
            self.split.note(f"{self.node.name} is refused by {loan.holder.node.name}: {refusal}")
            ring.broken = True
            return
        ring.granted += 1
        if ring.granted == len(ring.loans):
            self.split.mesh.world.after(LOAD_S, lambda: self._loaded(ring))

    def _loaded(self, ring: Ring) -> None:
        if ring is self.ring and not ring.broken and self.node.runs:
            ring.loaded = True
            self.split.note(f"{self.node.name} serves")
            self.split.mesh.world.changed = True

    def lost(self, loan: Loan) -> None:
        if self.ring is not None and loan in self.ring.loans:
            self.ring.broken = True
            self.ring.loaded = False
            self.split.mesh.world.changed = True

    def _yield(self) -> None:
        """Answers under way may end, then the stages go."""
        if self.ring is None or self.draining:
            return
        if not self.ring.loaded:
            self._let_go()
            return
        self.draining = True
        self.split.note(f"{self.node.name} drains")
        self.split.mesh.world.after(DRAIN_S, self._drained)

    def _drained(self) -> None:
        self.draining = False
        if self.node.runs:
            self._let_go()

    def _let_go(self) -> None:
        ring, self.ring = self.ring, None
        assert ring is not None and ring.own is not None
        self.leases.end(ring.own)
        for loan in ring.loans:
            loan.leader_keeps = False
            self.split.end(loan)
        self.split.mesh.world.changed = True

    # -- as a holder --------------------------------------------------------------------------------------

    def asked(self, loan: Loan) -> str | None:
        refusal = self.leases.ask(loan.lease, self.room, self._all_claims())
        loan.holder_keeps = refusal is None
        return refusal

    def ended(self, loan: Loan) -> None:
        if loan.holder_keeps:
            loan.holder_keeps = False
            self.leases.end(loan.lease)
            self.split.mesh.world.changed = True

    def _all_claims(self) -> dict[NodeId, SplitClaim]:
        own = {self.node.id: self.candidacy.claim} if self.candidacy is not None else {}
        return self.claims() | own


class SplitMesh:
    def __init__(self, mesh: SimulatedMesh) -> None:
        self.mesh = mesh
        self.splitters: dict[str, Splitter] = {}
        self.loans: list[Loan] = []

    # -- what a test does ---------------------------------------------------------------------------------

    def add(self, name: str, room_gib: float, *, wants: bool) -> Splitter:
        node = self.mesh.nodes[name]
        room = int(room_gib * GIB)
        splitter = Splitter(self, node, room, Candidacy(node.id, MODEL, room) if wants else None)
        self.splitters[name] = splitter
        held = node.adverts.get(node.id)
        assert held is not None
        node.take_advert(OwnChanged(replace(held, memory_bytes=room)))
        self.note(f"{name} {'wants' if wants else 'lends'}")
        splitter.look()
        return splitter

    def crash(self, name: str) -> None:
        self.mesh.crash(name)
        del self.splitters[name]

    # -- what a test asks ---------------------------------------------------------------------------------

    def serving(self, among: Iterable[str] | None = None) -> list[str]:
        names = self.splitters if among is None else among
        return sorted(name for name in names if self.splitters[name].serves)

    def one_serves(self, among: Iterable[str] | None = None) -> bool:
        """One leads and serves; all others that want it follow; nobody lends for anything else."""
        names = sorted(self.splitters) if among is None else sorted(among)
        serving = self.serving(names)
        if len(serving) != 1:
            return False
        leader = self.splitters[serving[0]]
        assert leader.ring is not None
        followers = [self.splitters[name] for name in names if name != serving[0]]
        follows = all(one.candidacy is None or one.standing == Follow(leader.node.id) for one in followers)
        holders = {loan.holder for loan in leader.ring.loans}
        lent = {one for one in followers if one.leases.get(MODEL) is not None}
        return isinstance(leader.standing, Lead) and follows and lent == holders

    # -- the world between them ---------------------------------------------------------------------------

    def note(self, line: str) -> None:
        self.mesh.world.note(line)

    def splitter(self, node: NodeId) -> Splitter:
        return self.splitters[self.mesh.names[node]]

    def view_of(self, splitter: Splitter) -> SplitView:
        """Living members that lend, in their own words; near to each other or out of reach."""
        node = splitter.node
        adverts = [node.adverts.get(other) for other in node.membership.living()]
        hosts = [
            StageHost(advert.node, advert.memory_bytes)
            for advert in adverts
            if advert is not None and self.mesh.names[advert.node] in self.splitters
        ]
        nodes = [node.id, *(host.node for host in hosts)]
        trips = {
            pair(one, other): 0.002 if self._reach(self.mesh.names[one], self.mesh.names[other]) else inf
            for one, other in combinations(nodes, 2)
        }
        return SplitView(StageHost(node.id, splitter.room), tuple(hosts), trips)

    def ask(self, loan: Loan, ring: Ring) -> None:
        leader, holder = loan.leader.node.name, loan.holder.node.name

        def broken() -> None:
            loan.leader.heard(loan, ring, "cannot be reached")

        def arrive() -> None:
            if not loan.holder.node.runs or loan.holder.node.paused or not loan.leader_keeps:
                self.mesh.world.after(GUARD_S, broken)
                return
            refusal = loan.holder.asked(loan)
            if refusal is None:
                self.loans.append(loan)
                self._guard(loan)
            self.check()
            answer = lambda: loan.leader.heard(loan, ring, refusal)  # noqa: E731
            self.mesh.world.stream(holder, leader, answer, broken)

        self.mesh.world.stream(leader, holder, arrive, broken)

    def end(self, loan: Loan) -> None:
        """The leader ends the stream; where that does not arrive the guard notices."""
        names = loan.leader.node.name, loan.holder.node.name
        self.mesh.world.stream(*names, lambda: loan.holder.ended(loan), lambda: None)

    def _guard(self, loan: Loan) -> None:
        """A second at a time: a stream whose ends do not reach each other breaks after GUARD_S, at both."""
        ends = loan.leader.node, loan.holder.node
        if not loan.holder_keeps:
            return
        reached = all(node.runs for node in ends) and loan.leader_keeps
        reached = reached and self._reach(ends[0].name, ends[1].name)
        now = self.mesh.world.now
        if reached:
            loan.silent_since = None
        elif loan.silent_since is None:
            loan.silent_since = now
        elif now - loan.silent_since >= GUARD_S:
            loan.holder.ended(loan)
            loan.leader.lost(loan)
            return
        self.mesh.world.after(1.0, lambda: self._guard(loan))

    def _reach(self, one: str, other: str) -> bool:
        return self.mesh.world.reaches(one, other) and self.mesh.world.reaches(other, one)

    def check(self) -> None:
        for name, one in sorted(self.splitters.items()):
            kept = [loan for loan in self.loans if loan.holder is one and loan.holder_keeps]
            leaders = {loan.leader.node.id for loan in kept}
            if one.ring is not None:
                leaders.add(one.node.id)
            self.mesh.check(len(leaders) <= 1, f"{name} holds layers for {len(leaders)} leaders")
            self.mesh.check(one.leases.bytes_lent <= one.room, f"{name} lends more than it has")
