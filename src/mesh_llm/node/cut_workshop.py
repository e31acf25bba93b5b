"""What the cut of one mixture is made with on this node: rankings, bytes, the store, children, other nodes.

`node.cut_model.Workshop`.
"""

import asyncio
import logging
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from pathlib import Path

from mesh_llm.core.errors import ModelDamaged
from mesh_llm.core.experts import ExpertLayout, ExpertRanking, Kept, Quality
from mesh_llm.core.ids import NodeId
from mesh_llm.core.offers import MEASURES_NOW, WOULD_MEASURE, CutOffer
from mesh_llm.core.progress import Progress
from mesh_llm.core.quantities import human_bytes
from mesh_llm.engine.experts.judging import judge
from mesh_llm.engine.experts.settings import Loading
from mesh_llm.engine.experts.trying import try_out
from mesh_llm.engine.supervisor import Supervisor
from mesh_llm.mesh.service import Mesh
from mesh_llm.models.experts.cut_store import CutStore
from mesh_llm.models.experts.quality_files import read_quality, write_quality
from mesh_llm.models.gguf.header import read_file_header
from mesh_llm.models.gguf.model_facts import facts_of
from mesh_llm.models.library import LocalModel
from mesh_llm.models.stages.ranges import FileRanges, RangeSource
from mesh_llm.models.threads import run_to_end
from mesh_llm.node.cut_model import Choice
from mesh_llm.node.expert_rankings import ExpertRankings
from mesh_llm.node.measuring import LOOK_SECONDS, Tell, had_elsewhere
from mesh_llm.node.mixture_holders import MixtureHolders
from mesh_llm.node.mixtures import MixtureSource
from mesh_llm.node.own_models import OwnModels
from mesh_llm.node.settings import Doors
from mesh_llm.planner.expert_deal import kept_beside
from mesh_llm.planner.expert_plan import ExpertCut
from mesh_llm.splits.peer_ranges import PartFile, PeerRanges

logger = logging.getLogger(__name__)

SETTLED_LOOKS = 5
"""So often the same other list must have been wanted: nodes that come and go at once cost no restart."""


class CutWorkshop:
    def __init__(
        self,
        source: MixtureSource,
        planned: ExpertCut,
        layout: ExpertLayout,
        rankings: ExpertRankings,
        store: CutStore,
        mesh: Mesh,
        models: OwnModels,
        doors: Doors,
    ) -> None:
        self._source = source
        self._planned = planned
        self._layout: ExpertLayout = layout
        self._rankings = rankings
        self._store = store
        self._mesh = mesh
        self._models = models
        self._environment = doors.environment

    async def choose(self, tell: Tell) -> Choice:
        """Raises Unavailable, EngineFailed, DiskFull."""
        ranking = await self._rankings.of(self._source, tell)
        return Choice(ranking, self._wanted(ranking))

    def _wanted(self, ranking: ExpertRanking) -> Kept:
        """With layout best it depends on this node alone."""
        others = {node: cut.kept for node, cut in self._others()}
        shape = self._source.mixture.shape
        return kept_beside(others, self._mesh.me, self._planned.count, shape, ranking, self._layout)

    def _others(self) -> Sequence[tuple[NodeId, CutOffer]]:
        """Who else has a cut of this model, and which."""
        return self._rankings.offers(self._source.identity)

    async def wait_for_another(self, choice: Choice) -> None:
        if self._layout == "best":
            await asyncio.Event().wait()
        looks, last = 0, choice.kept
        while looks < SETTLED_LOOKS:
            await asyncio.sleep(LOOK_SECONDS)
            wanted = self._wanted(choice.ranking)
            looks = looks + 1 if wanted.digest == last.digest != choice.kept.digest else 0
            last = wanted

    @asynccontextmanager
    async def cut(self, choice: Choice, on_fetched: Callable[[Progress], None]) -> AsyncGenerator[Path]:
        """Raises ModelDamaged, DiskFull, DownloadFailed."""
        source = self._source
        async with AsyncExitStack() as kept:
            async with self._ranges() as ranges:
                self._say_why(choice)
                held = self._store.cut(
                    source.identity,
                    choice.ranking.digest,
                    choice.kept,
                    source.headers,
                    ranges,
                    on_fetched,
                )
                file = await kept.enter_async_context(held)
            yield file

    @asynccontextmanager
    async def _ranges(self) -> AsyncGenerator[RangeSource]:
        """This disk, else members that hold it, else where it was published."""
        source = self._source
        if source.files:
            yield FileRanges(source.files)
            return
        parts = [PartFile(part.size, part.root) for part in source.parts]
        holders = MixtureHolders(source, self._mesh)
        await holders.wait()
        async with PeerRanges.open(
            source.identity, parts, holders.now, self._mesh.stream, self._mesh.is_member, source.origin
        ) as ranges:
            yield ranges
            logger.info("%s: %s came from members", source.name, human_bytes(ranges.bytes_fetched))

    def _say_why(self, choice: Choice) -> None:
        """A cut that is here and is not the one that is wanted is not served: people should know why."""
        source = self._source
        place = self._store.place(source.identity, choice.ranking.digest, choice.kept)
        others = list(place.parent.glob("*.gguf"))
        if others and place not in others:
            logger.info(
                "%s: %s on this disk is of another ranking, size or choice of experts, so a cut is made anew",
                source.name,
                others[0].name,
            )

    async def try_out(self, file: Path) -> None:
        """Raises EngineFailed."""
        await try_out(file, environment=self._environment)

    async def supervise(self, file: Path) -> Supervisor:
        """Raises ModelDamaged."""
        source = self._source
        facts = facts_of([await run_to_end(read_file_header, file)])
        size = (await run_to_end(file.stat)).st_size
        model = LocalModel(source.name, (file,), size, facts, None, source.aliases, (None,))
        return self._models.supervise(model, self._planned.fit)

    @property
    def can_judge(self) -> bool:
        """Whether the whole model is here to be compared with."""
        return bool(self._source.files)

    async def known(self, choice: Choice) -> Quality | None:
        """What the cut costs, as measured on this disk or told by a member that keeps the same."""
        identity, digest = self._source.identity, choice.kept.digest
        try:
            measured = await run_to_end(read_quality, self._quality_path(choice), identity, digest)
        except ModelDamaged as error:
            logger.warning("%s: %s", self._source.name, error)
            measured = None
        return measured or self._told(digest)

    async def quality(self, choice: Choice, file: Path, tell: Tell, threads: int = 1) -> Quality | None:
        """Known, told by a member that measures it now, or measured; None where that is impossible here.

        `threads`: one beside an engine that answers. Raises EngineFailed, DiskFull.
        """
        said = WOULD_MEASURE if self.can_judge else ""
        tell("what it costs is to be measured", said)
        told = await had_elsewhere(
            self._mesh.me if self.can_judge else None,
            partial(self._judging, choice.kept.digest),
            partial(self.known, choice),
            lambda node: tell(f"waiting for {self._mesh.name_of(node)} to measure what it costs", said),
            asyncio.sleep,
        )
        if told is not None or not self.can_judge:
            return told
        return await self._judged_alone(choice, file, tell, threads)

    async def _judged_alone(self, choice: Choice, file: Path, tell: Tell, threads: int) -> Quality:
        """Another process may have judged the same on this disk meanwhile."""

        def waiting() -> None:
            tell("waiting for another process on this machine, which measures it", MEASURES_NOW)

        identity = self._source.identity
        async with self._store.measuring(identity, waiting):
            known = await self.known(choice)
            if known is not None:
                return known
            quality = await self._measured(file, tell, threads)
            path = self._quality_path(choice)
            await run_to_end(write_quality, path, identity, choice.kept.digest, quality)
        return quality

    def _quality_path(self, choice: Choice) -> Path:
        return self._store.quality_path(self._source.identity, choice.ranking.digest, choice.kept)

    def _told(self, digest: str) -> Quality | None:
        return next((cut.quality for _, cut in self._others() if cut.choice == digest and cut.quality), None)

    def _judging(self, digest: str) -> Mapping[NodeId, str]:
        """Who keeps the same, and does not know either."""
        same = [(node, cut) for node, cut in self._others() if cut.choice == digest]
        return {node: cut.measuring for node, cut in same if cut.quality is None}

    async def _measured(self, file: Path, tell: Tell, threads: int) -> Quality:
        def loading(path: Path) -> Loading:
            return Loading(
                str(path), threads, repacks=False
            )  # more than this node has room for stays on disk

        def on_share(word: str, share: float) -> None:
            tell(f"measuring what it costs: {word} {share:.0%}", MEASURES_NOW)

        tell("measuring what it costs", MEASURES_NOW)
        return await judge(
            loading(self._source.files[0]),
            loading(file),
            identity=self._source.identity,
            reference=self._store.reference_path(self._source.identity),
            environment=self._environment,
            on_share=on_share,
        )
