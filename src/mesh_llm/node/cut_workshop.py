"""What the cut of one mixture is made with on this node: rankings, bytes, the store, children, other nodes.

`node.cut_model.Workshop`.
"""

import asyncio
import logging
from collections.abc import AsyncGenerator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

from mesh_llm.core.errors import ModelDamaged
from mesh_llm.core.experts import ExpertLayout, ExpertRanking, Kept, Quality
from mesh_llm.core.ids import NodeId
from mesh_llm.core.offers import CutOffer
from mesh_llm.core.progress import Progress
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
from mesh_llm.node.cut_model import Choice, Tell
from mesh_llm.node.expert_rankings import ExpertRankings
from mesh_llm.node.mixtures import MixtureSource
from mesh_llm.node.own_models import OwnModels
from mesh_llm.node.settings import Doors
from mesh_llm.planner.expert_deal import dealt
from mesh_llm.planner.expert_plan import ExpertCut
from mesh_llm.splits.peer_ranges import PartFile, PeerRanges

logger = logging.getLogger(__name__)

LOOK_SECONDS = 2.0
"""Between looks at who else has a cut of the model."""

SETTLED_LOOKS = 5
"""So often the same other list must have been wanted: nodes that come and go at once cost no restart."""

REFERENCE_FILE = "reference"


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
        counts = {self._mesh.me: self._planned.count}
        if self._layout == "shared":
            counts |= {node: cut.kept for node, cut in self._others() if cut.kept}
        return dealt(self._source.mixture.shape, ranking, counts, self._layout)[self._mesh.me]

    def _others(self) -> list[tuple[NodeId, CutOffer]]:
        """Who else has a cut of this model, and which."""
        return [
            (neighbour.advert.node, served.offer.cut)
            for neighbour in self._mesh.neighbours()
            for served in neighbour.advert.models
            if served.offer.cut is not None and served.offer.cut.model == self._source.identity
        ]

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
        holders = self._rankings.holders(source.identity)
        async with PeerRanges.open(
            source.identity, parts, holders, self._mesh.stream, self._mesh.is_member, source.origin
        ) as ranges:
            yield ranges

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

    async def quality(self, choice: Choice, file: Path) -> Quality | None:
        """Known, told by a member that keeps the same, or measured; None where that is impossible here.
        Raises EngineFailed, DiskFull."""
        identity, digest = self._source.identity, choice.kept.digest
        path = file.with_suffix(".quality.json")
        try:
            known = await run_to_end(read_quality, path, identity, digest)
        except ModelDamaged as error:
            logger.warning("%s: %s", self._source.name, error)
            known = None
        known = known or self._told(digest)
        if known is not None or not self._source.files:
            return known
        quality = await self._measured(file)
        await run_to_end(write_quality, path, identity, digest, quality)
        return quality

    def _told(self, digest: str) -> Quality | None:
        return next((cut.quality for _, cut in self._others() if cut.choice == digest and cut.quality), None)

    async def _measured(self, file: Path) -> Quality:
        def loading(path: Path) -> Loading:
            return Loading(str(path), threads=1, repacks=False)  # beside an engine that answers

        return await judge(
            loading(self._source.files[0]),
            loading(file),
            identity=self._source.identity,
            reference=self._store.folder_of("cut", self._source.identity) / REFERENCE_FILE,
            environment=self._environment,
        )
