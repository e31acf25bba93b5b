"""Mixtures of experts that this node cannot hold whole and serves as cuts: with `--split experts` at once,
else where `undecided_mixture.py` finds that there is no better way.

How it goes, for each such model:
1. Its header says what it is (`mixtures.py`); what is no mixture, or cannot be cut, is refused at the start.
2. How many experts fit is decided at once, by memory alone, and that memory is taken.
3. Which are best is had from this disk, a member, or a measurement here (`expert_rankings.py`).
4. The cut is made from this disk, members or the origin, tried out, and run by a llama-server of its own
   (`cut_workshop.py`, `cut_model.py`). The gateway sees a model like any other, of that name.
5. The advert says how many experts are kept; what that costs is measured beside the first answers.
6. Cuts differ, so a conversation stays where it is (`gateway/affinity.py`) while that node lives.
7. With layout `best` nothing depends on other nodes. With `shared` the list does: a node whose list has
   changed, and stays so, cuts again; all others go on.
Counterpart: `splitting.py`, which runs models over several nodes in layers. No policy is here.
"""

import asyncio
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from mesh_llm.core.errors import DoesNotFit, RequestRefused
from mesh_llm.core.quantities import human_bytes
from mesh_llm.core.serving import ServedModel
from mesh_llm.mesh.service import Mesh
from mesh_llm.models.experts.cut_store import CutStore
from mesh_llm.models.experts.detection import notes
from mesh_llm.models.hub_model import HubModel
from mesh_llm.models.library import LocalModel
from mesh_llm.models.records import Records
from mesh_llm.models.stages.manifests import Manifests
from mesh_llm.node.cut_model import CutModel
from mesh_llm.node.cut_workshop import CutWorkshop
from mesh_llm.node.expert_rankings import ExpertRankings
from mesh_llm.node.mixtures import MixtureSource, mixture_source
from mesh_llm.node.own_models import OwnModels
from mesh_llm.node.settings import Doors, NodeSettings
from mesh_llm.planner.expert_plan import ExpertCut, NoCut, expert_cut
from mesh_llm.runtime.bell import Bell

logger = logging.getLogger(__name__)


class ExpertCuts:
    def __init__(
        self,
        settings: NodeSettings,
        doors: Doors,
        models: OwnModels,
        mesh: Mesh,
        manifests: Manifests,
        records: Records,
        room: Callable[[], int],
        changes: Bell,
    ) -> None:
        """`room`: bytes that neither this node's own models nor others have taken."""
        self._settings = settings
        self._doors = doors
        self._own_models = models
        self._mesh = mesh
        self._manifests = manifests
        self._records = records
        self._room = room
        self._changes = changes
        self._store = CutStore(settings.places)
        self.rankings = ExpertRankings(self._store, mesh, models, doors.environment)
        self.models: tuple[CutModel, ...] = ()
        """That were asked for."""
        self.sources: Mapping[str, MixtureSource] = {}
        """Theirs, by identity."""

    async def begin(self) -> None:
        """With what was asked for. Raises MeshError where a model cannot be cut, or no cut of it fits."""
        wanted = self._own_models.to_split
        sources = [await mixture_source(model, self._manifests, self._records) for model in wanted]
        self.sources = {source.identity: source for source in sources}
        self.models = tuple(map(self._model, sources))

    async def run(self) -> None:
        """Serves what it began with, until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            for model in self.models:
                tasks.create_task(self._run(model), name=repr(model))

    async def _run(self, model: CutModel) -> None:
        """Until it is dropped."""
        await model.run()
        self.models = tuple(each for each in self.models if each is not model)
        self._changes.ring()

    async def source(self, model: LocalModel | HubModel) -> MixtureSource | None:
        """None where it is no mixture, or one that cannot be cut. Raises ModelDamaged."""
        if model.facts.experts < 2:
            return None
        try:
            return await mixture_source(model, self._manifests, self._records)
        except RequestRefused as refusal:
            logger.info("%s", refusal)
            return None

    def planned(self, source: MixtureSource) -> ExpertCut | NoCut:
        """What fits now. Raises RequestRefused for a context beyond the model's."""
        return expert_cut(source.mixture, self._room(), self._own_models.wish)

    def workshop(self, source: MixtureSource, planned: ExpertCut) -> CutWorkshop:
        return CutWorkshop(
            source,
            planned,
            self._settings.expert_layout,
            self.rankings,
            self._store,
            self._mesh,
            self._own_models,
            self._doors,
        )

    def _model(self, source: MixtureSource) -> CutModel:
        """Raises DoesNotFit."""
        planned = self.planned(source)
        if isinstance(planned, NoCut):
            raise DoesNotFit(f"{source.name}: {planned.because}")
        return self.model(source, planned)

    def model(self, source: MixtureSource, planned: ExpertCut) -> CutModel:
        """Takes its memory, and gives it back when it has ended. To be run."""
        give_back = self._own_models.take(planned.fit.need.total)
        logger.info(
            "%s: %d of %d experts of each layer fit here, in %s",
            source.name,
            planned.count,
            source.mixture.shape.experts,
            human_bytes(planned.fit.need.total),
        )
        for note in notes(source.headers):
            logger.warning("%s: %s", source.name, note)
        workshop = self.workshop(source, planned)
        served = self.served(source, planned)
        return CutModel(source, planned, served, workshop, self._changes.ring, give_back)

    def served(self, source: MixtureSource, planned: ExpertCut) -> ServedModel:
        """Before it is cut."""
        return ServedModel(
            name=source.name,
            aliases=source.aliases,
            facts=source.mixture.facts,
            bytes=source.mixture.cut_facts(planned.count).weights_bytes,
            context_length=planned.fit.context,
            kv_type=planned.fit.kv_type,
            slots=planned.fit.slots,
            vision=False,
            embeddings=planned.fit.embeddings,
            created=int(self._doors.clock.epoch()),
        )


@dataclass(frozen=True, slots=True)
class CutsOfOne:
    """`undecided_mixture.Cuts`."""

    cuts: ExpertCuts
    source: MixtureSource
    threads: int

    @property
    def can_judge(self) -> bool:
        return bool(self.source.files)

    def planned(self) -> ExpertCut | NoCut:
        return self.cuts.planned(self.source)

    def workshop(self, planned: ExpertCut) -> CutWorkshop:
        return self.cuts.workshop(self.source, planned)

    def model(self, planned: ExpertCut) -> CutModel:
        return self.cuts.model(self.source, planned)
