"""Any order of starts, deaths, leaves, pauses, cuts and changes; then peace, and everybody agrees."""

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from mesh_llm.mesh.gossip.roster import GONE_MAX
from tests.simulation.mesh import mesh_of
from tests.simulation.seeds import COUNT
from tests.simulation.world import NetworkConditions

NODES_MAX = 8
PEACE_S = 30


class ChurningMesh(RuleBasedStateMachine):
    @initialize(seed=st.integers(0, 2**32), loss=st.sampled_from([0.0, 0.05, 0.2]))
    def begin(self, seed: int, loss: float) -> None:
        self.mesh = mesh_of(3, seed, loss=loss, duplication=loss)
        self.started = 3
        self.stopped: list[str] = []

    def name(self, place: int) -> str:
        names = sorted(self.mesh.nodes)
        return names[place % len(names)]

    @rule()
    @precondition(lambda self: len(self.mesh.nodes) < NODES_MAX)
    def start(self) -> None:
        self.mesh.boot(f"n{self.started}", self.name(0))
        self.started += 1

    @rule(place=st.integers(0, NODES_MAX))
    @precondition(lambda self: self.stopped and len(self.mesh.nodes) < NODES_MAX)
    def start_again(self, place: int) -> None:
        self.mesh.boot(self.stopped.pop(place % len(self.stopped)), self.name(place))

    @rule(place=st.integers(0, NODES_MAX), says_so=st.booleans())
    @precondition(lambda self: len(self.mesh.nodes) > 2)
    def stop(self, place: int, says_so: bool) -> None:
        name = self.name(place)
        if says_so:
            self.mesh.leave(name)
        self.mesh.crash(name)
        self.stopped.append(name)

    @rule(place=st.integers(0, NODES_MAX), seconds=st.floats(0.5, 40))
    def pause(self, place: int, seconds: float) -> None:
        self.mesh.pause(self.name(place), seconds)

    @rule(size=st.integers(1, NODES_MAX))
    def partition(self, size: int) -> None:
        names = sorted(self.mesh.nodes)
        self.mesh.world.partition(names[:size], names[size:])

    @rule(one=st.integers(0, NODES_MAX), other=st.integers(0, NODES_MAX))
    def cut(self, one: int, other: int) -> None:
        self.mesh.world.cut(self.name(one), self.name(other))

    @rule()
    def heal(self) -> None:
        self.mesh.world.heal()

    @rule(place=st.integers(0, NODES_MAX))
    def change(self, place: int) -> None:
        self.mesh.change(self.name(place), f"Model-{self.mesh.world.now}")

    @rule(seconds=st.floats(0.1, 60))
    def wait(self, seconds: float) -> None:
        self.mesh.world.run_for(seconds)

    @invariant()
    def limits_hold(self) -> None:
        for node in self.mesh.nodes.values():
            members = node.membership.members()
            assert node.id not in {member.node for member in members}
            assert sum(not member.health.living for member in members) <= GONE_MAX
            assert node.membership.news_waiting <= len(members) + 1

    def teardown(self) -> None:
        if not hasattr(self, "mesh"):
            return
        self.mesh.world.heal()
        self.mesh.world.set_conditions(NetworkConditions())
        self.mesh.world.run_for(40)  # the longest pause is over
        for name in sorted(self.mesh.nodes):  # the address book speaks again, as it does for a real mesh
            self.mesh.introduce(name, *sorted(self.mesh.nodes))
        self.mesh.world.run_until(self.mesh.agrees, within=PEACE_S)


TestChurningMesh = ChurningMesh.TestCase
TestChurningMesh.settings = settings(
    max_examples=2 * COUNT,
    stateful_step_count=20,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow],
)
