"""A mixture of experts that fits no node, and of which nobody said how to run it: exactly, in stages, as long
as those are possible; else, once it was measured to be good enough, as a cut of this node's own.

To the gateway it is one backend, whatever runs behind it. While no stages are possible the cut is prepared:
ranked, made, tried out, judged. If they become possible meanwhile, that ends. A cut that is served stays
until the node ends. Counterparts: `planner/expert_plan.choose` decides, `expert_cuts.py` has what cuts are
made with.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Protocol

from mesh_llm.core.errors import DiskFull, DownloadFailed, EngineFailed, ModelDamaged, Unavailable
from mesh_llm.core.experts import Quality
from mesh_llm.core.offers import CutOffer
from mesh_llm.core.progress import Progress
from mesh_llm.core.serving import Condition, ServedModel, Stopped, Waiting
from mesh_llm.core.stages import SplitClaim
from mesh_llm.node.cut_model import RETRY_SECONDS, Choice, CutModel, Workshop
from mesh_llm.node.leading import Outlook
from mesh_llm.node.measuring import Tell
from mesh_llm.node.mixtures import MixtureSource
from mesh_llm.planner import expert_plan
from mesh_llm.planner.expert_plan import ExpertCut, ExpertWish, NoCut, choose
from mesh_llm.planner.stage_hope import StageHope
from mesh_llm.runtime.bell import Bell
from mesh_llm.runtime.clock import Clock
from mesh_llm.runtime.tasks import beside

logger = logging.getLogger(__name__)

LOOKS_APART_SECONDS = 1.0
"""Between two looks at the plan for stages; each change of the mesh rings for another."""

IMPOSSIBLE = "no stages of it are possible within reach"


class Exactly(Protocol):
    """Its life in stages: `splits.split_model.SplitModel`."""

    @property
    def model(self) -> ServedModel: ...

    @property
    def condition(self) -> Condition: ...

    @property
    def claim(self) -> SplitClaim | None: ...

    async def run(self) -> None: ...

    async def drop(self, reason: str, until_unused: Callable[[], Awaitable[object]]) -> None: ...

    async def explain_failure(self) -> str: ...


class JudgingWorkshop(Workshop, Protocol):
    """A cut may be judged before it is served."""

    async def known(self, choice: Choice) -> Quality | None: ...

    async def quality(self, choice: Choice, file: Path, tell: Tell, threads: int = 1) -> Quality | None: ...


class Cuts(Protocol):
    """What a cut of it is made with on this node: `expert_cuts.CutsOfOne`."""

    @property
    def can_judge(self) -> bool: ...

    @property
    def threads(self) -> int: ...

    def planned(self) -> ExpertCut | NoCut:
        """What fits now."""
        ...

    def workshop(self, planned: ExpertCut) -> JudgingWorkshop: ...

    def model(self, planned: ExpertCut) -> CutModel:
        """Takes its memory. To be run."""
        ...


class UndecidedMixture:
    """`gateway.backend.Backend`."""

    def __init__(
        self,
        source: MixtureSource,
        exactly: Exactly,
        outlook: Callable[[], Outlook | None],
        knows_others: Callable[[], bool],
        cuts: Cuts,
        wish: ExpertWish,
        clock: Clock,
        changes: Bell,
    ) -> None:
        """`outlook`: for stages, None while this node does not lead the model. `changes` rings when it may
        have become another, and is rung when the condition has."""
        self._source = source
        self._exactly = exactly
        self._outlook = outlook
        self._knows_others = knows_others
        self._cuts = cuts
        self._wish = wish
        self._clock = clock
        self._changes = changes
        self._hope = StageHope()
        self._offer: CutOffer | None = None
        """Of the cut that is being prepared; it has no experts before it is decided."""
        self._told = ""
        """What is done about a cut, or why there is none; empty while stages are possible."""
        self._cut: CutModel | None = None
        """What is served in the end, where it is not exact."""

    def __repr__(self) -> str:
        return f"<UndecidedMixture {self._source.name} {self.condition}>"

    @property
    def model(self) -> ServedModel:
        if self._cut is not None:
            return self._cut.model
        model = self._exactly.model
        return model if self._offer is None else replace(model, cut=self._offer)

    @property
    def condition(self) -> Condition:
        if self._cut is not None:
            return self._cut.condition
        condition = self._exactly.condition
        return Waiting(self._told) if self._told and isinstance(condition, Waiting) else condition

    @property
    def claim(self) -> SplitClaim | None:
        """None once a cut is served, or it was dropped: then others may lead."""
        return self._exactly.claim

    async def explain_failure(self) -> str:
        return await (self._cut or self._exactly).explain_failure()

    async def drop(self, reason: str, until_unused: Callable[[], Awaitable[object]]) -> None:
        """As `SplitModel.drop` and `CutModel.drop`."""
        await (self._cut or self._exactly).drop(reason, until_unused)

    async def run(self) -> None:
        """Until it is dropped; cancelling ends what runs."""
        async with beside(deciding=self._decide()):
            await self._exactly.run()
        if self._cut is not None:
            await self._cut.run()

    # -- deciding ------------------------------------------------------------------------------------------

    async def _decide(self) -> None:
        while True:
            if self._is_hopeless():
                await self._prepare_while_hopeless()
            await self._wait_for_news()

    def _is_hopeless(self) -> bool:
        outlook = self._outlook()
        plan = outlook.plan if outlook is not None else None
        return self._hope.is_lost(plan, self._clock.monotonic(), knows_others=self._knows_others())

    async def _prepare_while_hopeless(self) -> None:
        try:
            async with beside(cut=self._prepare()):
                while self._cut is not None or self._is_hopeless():
                    await self._wait_for_news()
            logger.info("%s: no cut is prepared any more, stages may be possible", self._source.name)
        finally:
            self._offer = None
            self._say("")

    async def _prepare(self) -> None:
        while True:
            planned = self._cuts.planned()
            try:
                await self._consider(planned)
            except (Unavailable, DownloadFailed, ModelDamaged, DiskFull) as error:
                self._conclude(f"{IMPOSSIBLE}, and a cut of its experts cannot be prepared now: {error}")
                await asyncio.sleep(RETRY_SECONDS)
                continue
            except EngineFailed as error:  # it would fail again, after as many minutes
                self._conclude(f"{IMPOSSIBLE}, and a cut of its experts cannot be prepared: {error}")
            await self._wait_for_another_room(planned)

    async def _wait_for_another_room(self, planned: ExpertCut | NoCut) -> None:
        """Until something else would fit."""
        while True:
            await asyncio.sleep(RETRY_SECONDS)
            if self._cuts.planned() != planned:
                return

    async def _consider(self, planned: ExpertCut | NoCut) -> None:
        """Serves the cut if that may be; else people are told why not. Raises Unavailable, DownloadFailed,
        ModelDamaged, DiskFull, EngineFailed."""
        if isinstance(planned, NoCut):
            self._conclude(self._chosen(planned, None).because)
            return
        shape = self._source.mixture.shape
        self._offer = CutOffer(self._source.identity, experts=shape.experts)
        workshop = self._cuts.workshop(planned)
        choice = await workshop.choose(self._tell)
        self._offer = replace(self._offer, ranking=choice.ranking.digest, choice=choice.kept.digest)
        quality = await self._judged(planned, workshop, choice)
        chosen = self._chosen(planned, quality)
        if chosen.way != "experts" or self._cuts.planned() != planned:
            self._offer = replace(self._offer, quality=quality)
            self._conclude(chosen.because)
        elif not isinstance(self._exactly.condition, Stopped):
            await self._serve(planned, chosen.because)

    async def _judged(self, planned: ExpertCut, workshop: JudgingWorkshop, choice: Choice) -> Quality:
        quality = await workshop.known(choice)
        if quality is None:
            logger.info("%s: %s", self._source.name, self._chosen(planned, None).because)
        if quality is None and self._cuts.can_judge:
            async with workshop.cut(choice, self._fetched) as file:
                self._tell("trying out the cut")
                await workshop.try_out(file)
                quality = await workshop.quality(choice, file, self._tell, self._cuts.threads)
        while quality is None:
            self._conclude(self._chosen(planned, None).because)
            await asyncio.sleep(RETRY_SECONDS)
            quality = await workshop.known(choice)
        return quality

    def _chosen(self, planned: ExpertCut | NoCut, quality: Quality | None) -> expert_plan.Choice:
        outlook = self._outlook()
        if outlook is None:
            raise Unavailable("another node leads it by now", retry_after_s=int(RETRY_SECONDS))
        mixture, can_judge = self._source.mixture, self._cuts.can_judge
        return choose(mixture, outlook.view, outlook.plan, planned, quality, self._wish, can_judge=can_judge)

    async def _serve(self, planned: ExpertCut, because: str) -> None:
        """From here on it is a cut; the claim is withdrawn, so that the next node may decide for itself."""
        logger.warning("%s: %s", self._source.name, because)
        self._cut = self._cuts.model(planned)
        self._changes.ring()
        await self._exactly.drop("a cut of it is served instead", _nobody_uses_it)

    # -- telling -------------------------------------------------------------------------------------------

    def _tell(self, what: str, measuring: str = "") -> None:
        if self._offer is not None:
            self._offer = replace(self._offer, measuring=measuring)
        self._say(f"{IMPOSSIBLE}, so a cut of its experts is prepared: {what}")

    def _fetched(self, progress: Progress) -> None:
        if progress.total:
            self._tell(f"cutting, {progress.done / progress.total:.0%}")

    def _conclude(self, because: str) -> None:
        """Nothing is measured any more, so nobody need wait for it."""
        if self._offer is not None:
            self._offer = replace(self._offer, measuring="")
        if because != self._told:
            logger.warning("%s: %s", self._source.name, because)
        self._say(because)

    def _say(self, what: str) -> None:
        if what != self._told:
            self._told = what
            self._changes.ring()

    async def _wait_for_news(self) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(LOOKS_APART_SECONDS):
                await self._changes.wait_for_ring()


async def _nobody_uses_it() -> None:
    """No stage of it ran."""
