"""One mixture of experts as this node serves it: ranked, cut, tried out, run by an engine of its own, judged.

To the gateway it is a backend under the model's own name. Counterpart: `expert_cuts.py`, which says how many
experts fit and which of them this node should keep; nothing here knows of other nodes.
"""

import asyncio
import logging
from collections.abc import AsyncGenerator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

from mesh_llm.core.errors import DiskFull, DownloadFailed, EngineFailed, ModelDamaged, Unavailable
from mesh_llm.core.experts import ExpertRanking, Kept, Quality
from mesh_llm.core.offers import CutOffer
from mesh_llm.core.progress import Progress
from mesh_llm.core.serving import Condition, Failed, Ready, ServedModel, Stopped, Waiting
from mesh_llm.engine.supervisor import DROP_SECONDS_MAX, Supervisor
from mesh_llm.node.measuring import Tell
from mesh_llm.node.mixtures import MixtureSource
from mesh_llm.planner.expert_plan import ExpertCut
from mesh_llm.runtime.dropping import Droppable, UntilUnused
from mesh_llm.runtime.tasks import beside

logger = logging.getLogger(__name__)

RETRY_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class Choice:
    """What the cut is to hold."""

    ranking: ExpertRanking
    kept: Kept


class Workshop(Protocol):
    """What a cut is made with: `node.cut_workshop.CutWorkshop`."""

    async def choose(self, tell: Tell) -> Choice: ...

    def cut(
        self, choice: Choice, on_fetched: Callable[[Progress], None]
    ) -> AbstractAsyncContextManager[Path]: ...

    async def try_out(self, file: Path) -> None: ...

    async def supervise(self, file: Path) -> Supervisor: ...

    async def quality(self, choice: Choice, file: Path, tell: Tell) -> Quality | None: ...

    async def wait_for_another(self, choice: Choice) -> None:
        """Returns when the cut should hold other experts, which for most layouts is never."""
        ...


class CutModel:
    """`gateway.backend.Backend`."""

    def __init__(
        self,
        source: MixtureSource,
        planned: ExpertCut,
        served: ServedModel,
        workshop: Workshop,
        on_change: Callable[[], None],
        on_end: Callable[[], None],
    ) -> None:
        """`served`: as the model is served before it is cut. `on_end`: told when `run` ends."""
        shape = source.mixture.shape
        self._source = source
        self._workshop = workshop
        self._on_change = on_change
        self._on_end = on_end
        self._offer = CutOffer(source.identity, kept=planned.count, experts=shape.experts)
        self._served = served
        self._supervisor: Supervisor | None = None
        self._waiting: Condition = Waiting("its experts are to be ranked")
        self._last_end = "the cut is being made anew"
        self._life = Droppable()

    def __repr__(self) -> str:
        return f"<CutModel {self._source.name} {self._offer.kept} of {self._offer.experts}>"

    @property
    def model(self) -> ServedModel:
        served = self._supervisor.model if self._supervisor is not None else self._served
        return replace(served, cut=self._offer)

    @property
    def condition(self) -> Condition:
        if self._life.is_dropped or self._supervisor is None:
            return self._waiting
        return self._supervisor.condition

    async def explain_failure(self) -> str:
        return await self._supervisor.explain_failure() if self._supervisor is not None else self._last_end

    async def drop(
        self, reason: str, until_unused: UntilUnused, seconds_max: float = DROP_SECONDS_MAX
    ) -> None:
        """As `Supervisor.drop`."""
        if not self._life.is_dropped:
            self._last_end = reason
            self._become(Stopped())
            self._life.drop(until_unused, seconds_max)
        await self._life.wait_for_end()

    async def run(self) -> None:
        """Until dropped; cancelling stops the engine."""
        try:
            await self._life.live(self._live(), name=f"life of {self._source.name}")
        finally:
            self._on_end()

    async def _live(self) -> None:
        while not self._life.is_dropped:
            try:
                await self._serve()
            except (Unavailable, DownloadFailed, ModelDamaged, DiskFull) as error:
                logger.warning("%s: %s", self._source.name, error)
                self._become(Waiting(str(error)))
                await asyncio.sleep(RETRY_SECONDS)
            except EngineFailed as error:
                logger.error("%s: %s", self._source.name, error)
                self._offer = replace(self._offer, measuring="")  # others wait no longer
                self._become(Failed(str(error)))
                return

    async def _serve(self) -> None:
        """Until it should hold other experts."""
        choice = await self._workshop.choose(self._tell)
        kept, experts = choice.kept.count, self._offer.experts
        self._offer = replace(
            self._offer,
            ranking=choice.ranking.digest,
            choice=choice.kept.digest,
            kept=kept,
            quality=None,
            measuring="",
        )
        self._tell(f"cutting {kept} of {experts} experts of each layer")
        async with self._workshop.cut(choice, self._fetched) as file:
            self._tell("trying out the cut")
            await self._workshop.try_out(file)
            logger.info("%s: serving %d of %d experts, approximately", self._source.name, kept, experts)
            async with self._supervised(file), beside(judging=self._judge(choice, file)):
                await self._workshop.wait_for_another(choice)
            logger.info("%s: other experts are to be kept, so it is cut again", self._source.name)

    @asynccontextmanager
    async def _supervised(self, file: Path) -> AsyncGenerator[None]:
        supervisor = await self._workshop.supervise(file)
        self._supervisor = supervisor
        try:
            async with beside(engine=supervisor.run()):
                yield
        finally:
            self._supervisor = None
            self._become(Waiting("the cut is being made anew"))

    async def _judge(self, choice: Choice, file: Path) -> None:
        """Once it serves: what it costs is worth knowing, but nobody waits for it."""
        while not isinstance(self.condition, Ready):
            if isinstance(self.condition, Failed):
                return
            assert self._supervisor is not None, "it is judged only while its engine runs"
            await self._supervisor.wait_for_change()
        try:
            quality = await self._quality(choice, file)
            logger.info("%s: %.2f x the perplexity of the whole model", self._source.name, quality.ratio)
        except (EngineFailed, DiskFull) as error:
            logger.warning("%s: what its cut costs is not known: %s", self._source.name, error)
            quality = None
        self._offer = replace(self._offer, quality=quality, measuring="")
        self._on_change()

    async def _quality(self, choice: Choice, file: Path) -> Quality:
        """Where this node cannot measure it, another one may tell it one day."""
        while True:
            quality = await self._workshop.quality(choice, file, self._tell)
            if quality is not None:
                return quality
            await asyncio.sleep(RETRY_SECONDS)

    def _tell(self, what: str, measuring: str = "") -> None:
        """People see it while no engine runs, other nodes what is being measured at any time."""
        if measuring != self._offer.measuring:
            self._offer = replace(self._offer, measuring=measuring)
            self._on_change()
        self._become(Waiting(what))

    def _fetched(self, progress: Progress) -> None:
        if progress.total:
            share = progress.done / progress.total
            self._tell(f"cutting {self._offer.kept} of {self._offer.experts} experts: {share:.0%}")

    def _become(self, condition: Condition) -> None:
        if self._life.is_dropped or condition == self._waiting:
            return
        self._waiting = condition
        self._on_change()
