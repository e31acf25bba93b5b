"""A split model's life: real leases and rings over a village, stages that are small processes, a head that
computes nothing, and plans as the test wants them."""

import asyncio
import os
import signal
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from random import Random

from mesh_llm.core.errors import MeshError, RequestRefused
from mesh_llm.core.ids import NodeId
from mesh_llm.core.quantities import GIB
from mesh_llm.core.serving import Condition, Failed, Ready, Restarting, Stopped, Waiting
from mesh_llm.core.stages import LayerRange, SplitClaim
from mesh_llm.mesh.transport import Kind
from mesh_llm.models.stages.ranges import FileRanges
from mesh_llm.planner.fit import Wish as FitWish
from mesh_llm.planner.fit import fit
from mesh_llm.planner.memory import MemoryNeed
from mesh_llm.planner.split_plan import Plan, PlannedStage, Stages, Wait, Whole
from mesh_llm.runtime.bell import Bell
from mesh_llm.runtime.clock import Clock
from mesh_llm.splits.assembly import Site
from mesh_llm.splits.claims import SETTLE_S
from mesh_llm.splits.messages import Part
from mesh_llm.splits.ring_door import RingDoor
from mesh_llm.splits.split_model import SplitModel
from mesh_llm.splits.split_source import SplitSource
from tests.engine.served_model_for_tests import served
from tests.mesh.members import key
from tests.planner.cuttable import cuttable
from tests.splits.heads import Heads
from tests.splits.landlords import ALandlord, holder
from tests.splits.village import Village, until, village

LEADER, HOLDER, SPARE, RIVAL = 1, 2, 3, 4
ROOM = 1000
IDENTITY = "ab" * 32


class AClock(Clock):
    now = 100.0

    def monotonic(self) -> float:
        return self.now


class AScene:
    """Plans in turn, the last one for ever."""

    def __init__(self, plans: tuple[Plan | MeshError, ...]) -> None:
        self._plans = list(plans)
        self.planned = 0
        self.looks = 0
        self.others: dict[NodeId, SplitClaim] = {}

    def claims(self, model: str) -> Mapping[NodeId, SplitClaim]:
        assert model == IDENTITY
        self.looks += 1
        return self.others

    async def plan(self) -> Plan:
        self.planned += 1
        made = self._plans.pop(0) if len(self._plans) > 1 else self._plans[0]
        if isinstance(made, MeshError):
            raise made
        return made


def over(*holders: int) -> Stages:
    """One layer each, the last one with the leader."""
    need = MemoryNeed(100, 0, 0, 0, 0, 0)
    nodes = [key(number).node for number in (*holders, LEADER)]
    stages = tuple(PlannedStage(node, LayerRange(at, at + 1), need) for at, node in enumerate(nodes))
    return Stages(stages, 100, "f16", 2, 32, 0.1, "as the test wants it")


WAIT = Wait(700, "700 bytes are missing.")


class Stand:
    """Where a test looks and pulls."""

    def __init__(self, place: Village, folder: Path, plans: tuple[Plan | MeshError, ...]) -> None:
        self.scene = AScene(plans)
        self.clock = AClock()
        self.bell = Bell()
        self.unused = asyncio.Event()
        self.heads = Heads(folder)
        self.landlords: dict[int, ALandlord] = {
            number: holder(place[number], folder / str(number), place.is_member)[1]
            for number in (HOLDER, SPARE)
        }
        door = RingDoor()
        place[LEADER].answers[Kind.RING] = door.answer
        names = {key(number).node: f"node {number}" for number in (LEADER, HOLDER, SPARE, RIVAL)}
        source = SplitSource(
            "a model", (), 1000, IDENTITY, (), cuttable(6), (Part(name="m.gguf", size=1000),), FileRanges(())
        )
        site = Site(key(LEADER).node, place[LEADER].stream, door, lambda: names, lambda: (), "f32", Random(1))
        self.model = SplitModel(
            served(name="a model"),
            source,
            site,
            self.scene,
            self.heads.launch,
            ROOM,
            self.clock,
            self.unused.wait,
            self.bell,
            lambda: None,
        )

    @property
    def taken(self) -> int:
        """Bytes that others lend."""
        return sum(landlord.taken for landlord in self.landlords.values())

    async def look(self) -> None:
        """The model looks at the claims once more."""
        seen = self.scene.looks
        self.bell.ring()
        await until(lambda: self.scene.looks > seen)

    async def settle(self) -> None:
        """Time enough passes for claims to count."""
        await self.look()
        self.clock.now += SETTLE_S
        await self.look()

    async def become(self, wanted: type | Condition) -> None:
        await self.until(lambda: wanted in (self.model.condition, type(self.model.condition)))

    async def until(self, is_it: Callable[[], bool]) -> None:
        """The mesh rings all the while, so that nobody waits for long."""

        def seen() -> bool:
            self.bell.ring()
            return is_it()

        await until(seen)

    def rival(self, state: str) -> None:
        """Another node with more room claims the model."""
        self.scene.others = {key(RIVAL).node: SplitClaim(IDENTITY, state, 2 * ROOM)}


@asynccontextmanager
async def stand(folder: Path, *plans: Plan | MeshError) -> AsyncGenerator[Stand]:
    """With a model that has begun to lead."""
    async with village(RIVAL) as place:
        made = Stand(place, folder, plans)
        running = place.tasks.create_task(made.model.run())
        await until(lambda: made.scene.looks > 0)
        made.clock.now += SETTLE_S
        await made.look()
        yield made
        running.cancel()
        await asyncio.wait((running,))
        await made.until(lambda: made.taken == 0)
        assert not made.heads.running


async def test_a_plan_is_carried_out_and_everything_given_back_at_the_end(tmp_path: Path):
    async with stand(tmp_path, over(HOLDER, SPARE)) as made:
        await made.become(Ready)
        assert made.model.claim == SplitClaim(IDENTITY, "serving", ROOM)
        assert [stage.node_name for stage in made.model.model.stages] == ["node 2", "node 3", "node 1"]
        assert [stage.is_head for stage in made.model.model.stages] == [False, False, True]
        assert made.taken == 200


async def test_while_memory_is_missing_it_waits_and_plans_again(tmp_path: Path):
    async with stand(tmp_path, WAIT, over(HOLDER)) as made:
        await made.become(Waiting(WAIT.because))
        assert made.model.claim == SplitClaim(IDENTITY, "leading", ROOM)
        await made.become(Ready)
        assert made.scene.planned == 2


async def test_a_model_that_can_never_be_split_says_so(tmp_path: Path):
    async with stand(tmp_path, RequestRefused("It cannot be split into 99.")) as made:
        await made.become(Failed("It cannot be split into 99."))


async def test_where_a_node_declines_there_is_another_plan(tmp_path: Path):
    async with stand(tmp_path, WAIT, over(HOLDER), over(SPARE)) as made:
        made.landlords[HOLDER].memory = 10
        await made.become(Restarting)
        assert "node 2" in str(made.model.condition) and "Stop something" in str(made.model.condition)
        await made.become(Ready)
        assert made.model.model.stages[0].node == key(SPARE).node


async def test_a_ring_that_breaks_while_its_stages_live_is_linked_anew_without_loading(tmp_path: Path):
    async with stand(tmp_path, over(HOLDER, SPARE)) as made:
        await made.become(Ready)
        made.heads.running[0].break_ring()
        await made.become(Restarting)
        assert made.model.claim == SplitClaim(IDENTITY, "leading", ROOM)
        await made.become(Ready)
        assert made.model.claim == SplitClaim(IDENTITY, "serving", ROOM)
        assert [landlord.started for landlord in made.landlords.values()] == [1, 1]
        assert made.heads.started == made.scene.planned == 1


async def test_when_a_stage_is_lost_there_is_a_new_plan(tmp_path: Path):
    async with stand(tmp_path, over(HOLDER), over(SPARE)) as made:
        await made.become(Ready)
        os.kill(made.landlords[HOLDER].processes[0].child.pid, signal.SIGKILL)
        told = "node 2: the stage there ended: killed by SIGKILL"
        await made.until(lambda: told in str(made.model.condition))
        await made.become(Ready)
        assert made.model.model.stages[0].node == key(SPARE).node
        assert made.landlords[HOLDER].taken == 0


async def test_while_it_waits_nobody_is_said_to_hold_layers(tmp_path: Path):
    async with stand(tmp_path, over(HOLDER), WAIT) as made:
        await made.become(Ready)
        os.kill(made.landlords[HOLDER].processes[0].child.pid, signal.SIGKILL)
        await made.become(Waiting(WAIT.because))
        assert made.model.model.stages == ()


async def test_when_the_head_is_lost_there_is_a_new_plan(tmp_path: Path):
    async with stand(tmp_path, over(HOLDER)) as made:
        await made.become(Ready)
        made.heads.running[0].end("killed by SIGSEGV")
        assert "SIGSEGV" in await made.model.explain_failure()
        await made.become(Ready)
        assert made.heads.started == 2


async def test_a_node_that_can_hold_it_all_is_asked_to_serve_it(tmp_path: Path):
    model = cuttable(6)
    fitted = fit(model.facts, 100 * GIB, FitWish(100, 2))
    there = Whole(key(HOLDER).node, fitted, "It fits node 2.")
    async with stand(tmp_path, there, over(SPARE)) as made:
        await made.become(Waiting("node 2 runs it whole; ask any node of the mesh"))
        assert made.model.claim == SplitClaim(IDENTITY, "serving", ROOM)
        (order,) = made.landlords[HOLDER].orders
        assert order.whole and order.layers == LayerRange(0, 6)
        assert (order.context, order.memory_bytes) == (100, fitted.need.total)
        os.kill(made.landlords[HOLDER].processes[0].child.pid, signal.SIGKILL)
        await made.become(Ready)
        assert made.landlords[HOLDER].taken == 0 and made.landlords[SPARE].taken == 100


async def test_who_serves_lets_its_answers_end_when_another_one_comes_first(tmp_path: Path):
    async with stand(tmp_path, over(HOLDER)) as made:
        await made.become(Ready)
        made.rival("serving")
        await made.settle()
        await made.become(Waiting)
        assert made.model.claim == SplitClaim(IDENTITY, "wanting", ROOM)
        assert made.taken == 100 and made.heads.running
        made.unused.set()
        await made.until(lambda: made.taken == 0)
        await made.become(Waiting("node 4 runs it; ask any node of the mesh"))
        assert not made.heads.running


async def test_who_yields_waits_for_no_answers_of_a_ring_that_breaks(tmp_path: Path):
    async with stand(tmp_path, over(HOLDER)) as made:
        await made.become(Ready)
        made.rival("serving")
        await made.settle()
        await made.become(Waiting)
        made.heads.running[0].end("killed by SIGSEGV")
        await made.until(lambda: made.taken == 0)
        assert isinstance(made.model.condition, Waiting)
        await made.become(Waiting("node 4 runs it; ask any node of the mesh"))


async def test_who_only_loads_gives_everything_back_at_once_when_another_one_comes_first(tmp_path: Path):
    async with stand(tmp_path, WAIT, over(HOLDER)) as made:
        made.landlords[HOLDER].fetching.clear()
        await made.until(lambda: made.taken == 100)
        made.rival("leading")
        await made.look()
        await made.until(lambda: made.taken == 0)
        await made.become(
            Waiting("node 4 leads it and does not answer yet: `mesh-llm status` there says why")
        )
        made.rival("serving")
        await made.look()
        await made.become(Waiting("node 4 runs it; ask any node of the mesh"))


async def test_a_dropped_model_is_claimed_no_more_and_its_answers_may_end(tmp_path: Path):
    async with stand(tmp_path, over(HOLDER)) as made, asyncio.TaskGroup() as tasks:
        await made.become(Ready)
        drop = tasks.create_task(made.model.drop("it was dropped", made.unused.wait))
        await made.become(Stopped)
        assert made.model.claim is None
        made.rival("serving")
        made.bell.ring()
        await asyncio.sleep(0)
        assert made.taken == 100 and not drop.done()
        made.unused.set()
        await drop
        await made.until(lambda: made.taken == 0)
        assert made.model.condition == Stopped()


async def test_an_answer_that_outlasts_the_drop_is_told_why(tmp_path: Path):
    async with stand(tmp_path, over(HOLDER)) as made:
        await made.become(Ready)
        await made.model.drop("it was dropped", asyncio.Event().wait, seconds_max=0.01)
        assert await made.model.explain_failure() == "it was dropped"


async def test_a_model_that_waits_or_has_failed_can_be_dropped(tmp_path: Path):
    for number, plan in enumerate((WAIT, RequestRefused("never"))):
        (folder := tmp_path / str(number)).mkdir()
        async with stand(folder, plan) as made:
            await made.become(Waiting if plan is WAIT else Failed)
            made.unused.set()
            await made.model.drop("it was dropped", made.unused.wait)
            assert made.model.condition == Stopped() and made.model.claim is None


async def test_a_ring_that_breaks_while_it_is_dropped_is_not_planned_again(tmp_path: Path):
    async with stand(tmp_path, over(HOLDER)) as made, asyncio.TaskGroup() as tasks:
        await made.become(Ready)
        drop = tasks.create_task(made.model.drop("it was dropped", asyncio.Event().wait))
        await made.become(Stopped)
        made.heads.running[0].end("killed by SIGSEGV")
        await drop
        assert made.scene.planned == 1
