"""What becomes of a mixture of which nobody said how to run it; plans and cuts are as the test wants."""

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path

from mesh_llm.core.errors import EngineFailed
from mesh_llm.core.experts import Quality, best
from mesh_llm.core.ids import NodeId
from mesh_llm.core.progress import Progress
from mesh_llm.core.quantities import GIB
from mesh_llm.core.serving import Stopped, Waiting
from mesh_llm.engine.supervisor import Supervisor
from mesh_llm.node.cut_model import Choice, CutModel
from mesh_llm.node.leading import Outlook
from mesh_llm.node.measuring import Tell
from mesh_llm.node.mixtures import MixtureSource
from mesh_llm.node.stageless import Stageless
from mesh_llm.node.undecided_mixture import UndecidedMixture
from mesh_llm.planner.expert_plan import ExpertCut, ExpertWish, NoCut, expert_cut
from mesh_llm.planner.fit import Wish
from mesh_llm.planner.split_plan import Measure, Plan, Wait
from mesh_llm.planner.split_view import SplitView, StageHost
from mesh_llm.planner.stage_hope import ALONE_SECONDS
from mesh_llm.runtime.bell import Bell
from mesh_llm.runtime.clock import Clock
from tests.engine.served_model_for_tests import served
from tests.planner.mixtures import mixture, ranking

MIXTURE = mixture(layers=2)
SOURCE = MixtureSource("mix", (), "ab" * 32, MIXTURE, (), ())
VIEW = SplitView(StageHost(NodeId("0" * 64), 12 * GIB), (), {})
NONE, MAYBE = Wait(GIB, "Memory is missing."), Measure((), "Not known yet.")
GOOD, POOR = Quality(11.0, 10.0, 0.05, 0.9, 1024), Quality(15.0, 10.0, 0.5, 0.6, 1024)


class AClock(Clock):
    now = 100.0

    def monotonic(self) -> float:
        return self.now


class AWorkshop:
    def __init__(self, planned: ExpertCut, quality: Quality | EngineFailed | None, is_known: bool) -> None:
        self._kept = best(ranking(MIXTURE.shape), planned.count, MIXTURE.shape)
        self._quality = quality
        self._is_known = is_known
        self.judging = asyncio.Event()

    async def choose(self, tell: Tell) -> Choice:
        tell("ranking")
        return Choice(ranking(MIXTURE.shape), self._kept)

    def cut(
        self, choice: Choice, on_fetched: Callable[[Progress], None]
    ) -> AbstractAsyncContextManager[Path]:
        @asynccontextmanager
        async def made() -> AsyncGenerator[Path]:
            yield Path("cut.gguf")

        return made()

    async def try_out(self, file: Path) -> None: ...

    async def supervise(self, file: Path) -> Supervisor:
        raise EngineFailed("a test runs no engine")

    async def wait_for_another(self, choice: Choice) -> None: ...

    async def known(self, choice: Choice) -> Quality | None:
        return self._quality if self._is_known and isinstance(self._quality, Quality) else None

    async def quality(self, choice: Choice, file: Path, tell: Tell, threads: int = 1) -> Quality | None:
        tell("judging", "now")
        await self.judging.wait()
        if isinstance(self._quality, EngineFailed):
            raise self._quality
        return self._quality


class Stand:
    """`node.undecided_mixture.Cuts`, and all else that the mixture meets."""

    can_judge = True
    threads = 1

    def __init__(
        self, quality: Quality | EngineFailed | None, *, is_known: bool = True, room: int = 12
    ) -> None:
        self.plan: Plan | None = NONE
        self.clock, self.bell = AClock(), Bell()
        self.room = room * GIB
        fitting = expert_cut(MIXTURE, 12 * GIB, Wish())
        assert isinstance(fitting, ExpertCut)
        self.made = AWorkshop(fitting, quality, is_known)
        self.exactly = Stageless(served(name="mix"), NONE.because, self.bell.ring)
        self.model_made: CutModel | None = None
        self.given_back = asyncio.Event()
        self.mixture = UndecidedMixture(
            SOURCE, self.exactly, self._outlook, lambda: False, self, ExpertWish(), self.clock, self.bell
        )

    def _outlook(self) -> Outlook | None:
        return None if self.plan is None else Outlook(VIEW, self.plan)

    def planned(self) -> ExpertCut | NoCut:
        return expert_cut(MIXTURE, self.room, Wish())

    def workshop(self, planned: ExpertCut) -> AWorkshop:
        return self.made

    def model(self, planned: ExpertCut) -> CutModel:
        self.model_made = CutModel(
            SOURCE, planned, served(name="mix"), self.made, self.bell.ring, self.given_back.set
        )
        return self.model_made

    async def until(self, is_it: Callable[[], bool]) -> None:
        async with asyncio.timeout(10):
            while not is_it():
                self.bell.ring()
                await asyncio.sleep(0)

    async def until_told(self, *words: str) -> None:
        def told() -> bool:
            condition = self.mixture.condition
            return isinstance(condition, Waiting) and all(word in condition.reason for word in words)

        await self.until(told)


@asynccontextmanager
async def running(stand: Stand, *, hopeless: bool = True) -> AsyncGenerator[Stand]:
    async with asyncio.TaskGroup() as tasks:
        run = tasks.create_task(stand.mixture.run())
        for _ in range(3):
            stand.bell.ring()
            await asyncio.sleep(0)
        stand.clock.now += ALONE_SECONDS if hopeless else 0
        yield stand
        run.cancel()


async def test_a_cut_that_is_good_enough_is_served_and_the_exact_way_dropped():
    async with running(Stand(GOOD)) as stand:
        await stand.until(lambda: stand.model_made is not None)
        await stand.until(lambda: stand.exactly.condition == Stopped())
        assert stand.mixture.model.cut is not None and stand.mixture.claim is None


async def test_the_memory_of_a_cut_is_given_back_when_it_is_dropped():
    async with running(Stand(GOOD)) as stand:
        await stand.until(lambda: stand.exactly.condition == Stopped())
        assert not stand.given_back.is_set()

        async def unused() -> None: ...

        async with asyncio.timeout(5):
            await stand.mixture.drop("it was dropped", unused)
            await stand.given_back.wait()


async def test_a_cut_that_is_worse_is_told_with_its_figure_the_bound_and_what_helps():
    async with running(Stand(POOR)) as stand:
        await stand.until_told("1.50 x", "1.15 x", "--split experts", "--moe-quality", NONE.because)
        assert stand.model_made is None


async def test_nothing_is_prepared_while_stages_are_hoped_for():
    async with running(Stand(GOOD), hopeless=False) as stand:
        await stand.until_told(NONE.because)
        assert stand.mixture.model.cut is None and stand.model_made is None


async def test_while_a_cut_is_judged_people_and_others_hear_of_it():
    async with running(Stand(GOOD, is_known=False)) as stand:
        await stand.until_told("no stages", "judging")
        told = stand.mixture.model.cut
        assert told is not None and told.measuring == "now" and told.choice and not told.is_approximate
        stand.made.judging.set()
        await stand.until(lambda: stand.model_made is not None)


async def test_if_stages_become_possible_the_preparation_stops():
    async with running(Stand(GOOD, is_known=False)) as stand:
        await stand.until_told("judging")
        stand.plan = MAYBE
        await stand.until(lambda: stand.mixture.condition == Waiting(NONE.because))
        assert stand.mixture.model.cut is None and stand.model_made is None


async def test_where_another_node_leads_nothing_is_prepared():
    stand = Stand(GOOD)
    stand.plan = None
    async with running(stand):
        await stand.until_told(NONE.because)
        assert stand.model_made is None


async def test_an_engine_that_cannot_judge_is_told_of_and_others_wait_no_longer():
    async with running(Stand(EngineFailed("it broke"), is_known=False)) as stand:
        stand.made.judging.set()
        await stand.until_told("cannot be prepared", "it broke")
        assert stand.mixture.model.cut is not None and stand.mixture.model.cut.measuring == ""


async def test_a_node_too_small_for_any_cut_says_so():
    async with running(Stand(GOOD, room=1)) as stand:
        await stand.until_told("fewest experts", NONE.because)


async def test_it_can_be_dropped_while_nothing_is_decided():
    async with running(Stand(GOOD, is_known=False)) as stand:
        await stand.until_told("judging")

        async def unused() -> None: ...

        async with asyncio.timeout(5):
            await stand.mixture.drop("it was dropped", unused)
        assert stand.mixture.condition == Stopped() and stand.model_made is None
