"""Split models as this node takes part in them: leading its own, holding stages for others, giving bytes.

A part of the composition root: it wires `splits` to the engines, the store and the mesh, and holds no policy.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial
from pathlib import Path

from mesh_llm.core.errors import DoesNotFit, RequestRefused
from mesh_llm.core.ids import NodeId
from mesh_llm.core.stages import SplitClaim
from mesh_llm.mesh.service import Mesh
from mesh_llm.mesh.transport import Kind, Stream
from mesh_llm.models.hub_model import HubModel
from mesh_llm.models.library import LocalModel
from mesh_llm.models.records import Records
from mesh_llm.models.stages.manifests import Manifests
from mesh_llm.models.stages.store import StageStore
from mesh_llm.node.expert_cuts import CutsOfOne, ExpertCuts
from mesh_llm.node.guests import Guests
from mesh_llm.node.landlord import NodeLandlord
from mesh_llm.node.leading import Leading, Outlook, served_split
from mesh_llm.node.mixtures import MixtureSource
from mesh_llm.node.model_bytes import ModelBytes
from mesh_llm.node.own_models import OwnModels
from mesh_llm.node.own_speed import OwnSpeed
from mesh_llm.node.settings import Doors, NodeSettings
from mesh_llm.node.split_sources import local_source, published_identity, remote_source
from mesh_llm.node.stageless import Stageless
from mesh_llm.node.undecided_mixture import Exactly, UndecidedMixture
from mesh_llm.planner.expert_plan import ExpertWish, NoCut
from mesh_llm.planner.split_plan import Wait
from mesh_llm.planner.split_view import SplitView, StageHost
from mesh_llm.runtime.bell import Bell
from mesh_llm.runtime.draining import drained
from mesh_llm.splits.assembly import Site
from mesh_llm.splits.byte_serving import ByteServer
from mesh_llm.splits.claims import is_leading
from mesh_llm.splits.hosting import Hosting
from mesh_llm.splits.leases import Leases
from mesh_llm.splits.ring_door import RingDoor
from mesh_llm.splits.split_model import YIELD_SECONDS_MAX, SplitModel
from mesh_llm.splits.split_source import SplitSource
from mesh_llm.splits.surveying import Room, Surveyor


class Splitting:
    def __init__(
        self,
        settings: NodeSettings,
        doors: Doors,
        models: OwnModels,
        mesh: Mesh,
        busy_with: Callable[[str], int],
        changes: Bell,
    ) -> None:
        """`busy_with`: how many requests this node answers with a model; `changes` rings when it changes."""
        self._settings = settings
        self._doors = doors
        self._models = models
        self._mesh = mesh
        self._busy_with = busy_with
        self._changes = changes
        self.split_models: tuple[SplitModel | UndecidedMixture, ...] = ()
        self._has_begun = False
        self._sources: dict[str, SplitSource | MixtureSource] = {}
        """By identity."""
        self._records = Records(settings.places.notes, settings.places.store)
        self._manifests = Manifests(self._records)
        self._store = StageStore(settings.places)
        self._leases = Leases()
        self._door = RingDoor()
        self._speed = OwnSpeed(models, doors.environment)
        self._surveyor = Surveyor(mesh, self._room, mesh.is_member)
        self.guests = Guests(models, changes.ring)
        """Models of others that this node runs whole, beside its own."""
        self._landlord = NodeLandlord(
            models,
            self._store,
            self._leases,
            self._all_claims,
            ModelBytes(settings.places, self._manifests, mesh).ranges,
            self.guests,
            doors.environment,
        )
        self.cuts = ExpertCuts(
            settings,
            doors,
            models,
            mesh,
            self._manifests,
            self._records,
            self._landlord.memory_bytes_free,
            changes,
        )
        """Mixtures of which this node answers with some experts only."""
        self._hosting = Hosting(self._landlord, self._surveyor, self._door, mesh.stream, changes.ring)
        self._bytes = ByteServer(mesh.key, self._files_of, self._manifests)

    def answers(self) -> Mapping[Kind, Callable[[Stream], Awaitable[None]]]:
        """What members may ask of this node."""
        return {
            Kind.STAGE: self._hosting.answer,
            Kind.RING: self._door.answer,
            Kind.BYTES: self._bytes.answer,
            Kind.RANKING: self.cuts.rankings.answer,
        }

    def looking_at(self) -> tuple[str, ...]:
        """Models whose files are read before they are listed: large ones take minutes, the first time."""
        return () if self._has_begun else tuple(model.name for model in self._models.to_split)

    def claims(self) -> tuple[SplitClaim, ...]:
        """For this node's advert."""
        return tuple(model.claim for model in self.split_models if model.claim is not None)

    async def run(self) -> None:
        """Until cancelled. Raises MeshError where a model cannot be split."""
        await self._models.planned.wait()
        if self._settings.split_by == "experts":
            await self.cuts.begin()
        else:
            self.split_models = tuple([await self._model(model) for model in self._models.to_split])
        self._has_begun = True
        self._changes.ring()
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._speed.run(), name="own speed")
            tasks.create_task(self.cuts.run(), name="cuts of experts")
            for model in self.split_models:
                tasks.create_task(self._run(model), name=repr(model))

    async def _run(self, model: SplitModel | UndecidedMixture) -> None:
        """Until it is dropped."""
        await model.run()
        self.split_models = tuple(each for each in self.split_models if each is not model)
        self._changes.ring()

    async def _source(self, model: LocalModel | HubModel) -> SplitSource:
        try:
            if isinstance(model, HubModel):
                return remote_source(model)
            return await local_source(model, self._manifests, self._records)
        except RequestRefused as refusal:
            if self._settings.stages is not None:
                raise
            raise DoesNotFit(f"{self._models.shortfall(model)} {refusal}") from refusal

    async def _mixture(self, model: LocalModel | HubModel) -> MixtureSource | None:
        """None where it may run in stages only."""
        if self._settings.stages is not None:
            return None
        return await self.cuts.source(model)

    async def _model(self, model: LocalModel | HubModel) -> SplitModel | UndecidedMixture:
        mixture = await self._mixture(model)
        try:
            source = await self._source(model)
        except DoesNotFit as no_stages:
            if mixture is None:
                raise
            return self._without_stages(mixture, str(no_stages))
        self._sources[source.identity] = source
        leading = self._leading(source)
        split = self._split_model(source, leading)
        if mixture is None:
            return split

        def outlook() -> Outlook | None:
            return leading.outlook if split.claim is not None and is_leading(split.claim) else None

        return self._undecided(mixture, split, outlook)

    def _without_stages(self, mixture: MixtureSource, because: str) -> UndecidedMixture:
        """Raises DoesNotFit where no cut of it fits either."""
        planned = self.cuts.planned(mixture)
        if isinstance(planned, NoCut):
            raise DoesNotFit(f"{because} {planned.because}")
        self._sources[mixture.identity] = mixture
        me = StageHost(self._mesh.me, self._models.room_bytes, name=self._settings.name)
        outlook = Outlook(SplitView(me, (), {}), Wait(0, because))
        stageless = Stageless(self.cuts.served(mixture, planned), because, self._changes.ring)
        return self._undecided(mixture, stageless, lambda: outlook)

    def _undecided(
        self, mixture: MixtureSource, exactly: Exactly, outlook: Callable[[], Outlook | None]
    ) -> UndecidedMixture:
        return UndecidedMixture(
            mixture,
            exactly,
            outlook,
            lambda: bool(self._mesh.names()),
            CutsOfOne(self.cuts, mixture, self._models.machine.cores),
            ExpertWish(quality_ratio_max=self._settings.quality_ratio_max),
            self._doors.clock,
            self._changes,
        )

    def _split_model(self, source: SplitSource, leading: Leading) -> SplitModel:
        site = Site(
            me=self._mesh.me,
            open_stream=self._mesh.stream,
            door=self._door,
            names=self._names,
            holders=lambda: self._holders(source),
            activations=self._settings.activations,
            chance=self._doors.chance,
        )
        return SplitModel(
            served_split(source, self._settings.slots, self._doors.clock.epoch()),
            source,
            site,
            leading,
            leading.launch_head,
            self._models.room_bytes,
            self._doors.clock,
            partial(drained, partial(self._busy_with, source.name), self._changes, YIELD_SECONDS_MAX),
            self._changes,
            self._changes.ring,
        )

    def _leading(self, source: SplitSource) -> Leading:
        return Leading(
            source,
            self._settings,
            self._doors,
            self._models,
            self._mesh,
            self._surveyor,
            self._speed,
            self._store,
            self._leases,
            self._all_claims,
        )

    def _holders(self, source: SplitSource) -> Sequence[NodeId]:
        """This node if it has the files, and all who want the same model: they may have them too."""
        others = self._all_claims(source.identity).keys() - {self._mesh.me}
        return [*([self._mesh.me] if source.files else []), *sorted(others)]

    def _files_of(self, identity: str) -> Sequence[Path] | None:
        source = self._sources.get(identity) or self.cuts.sources.get(identity)
        if source is not None:
            return source.files or None
        whole = self._models.whole
        return next(
            (each.files for each in whole if published_identity(each, self._records) == identity), None
        )

    def _names(self) -> Mapping[NodeId, str]:
        return {**self._mesh.names(), self._mesh.me: self._settings.name}

    async def _room(self) -> Room:
        speed = await self._speed.get() if self._landlord.memory_bytes_free() else 0.0
        return Room(self._landlord.memory_bytes_free(), speed)

    def _all_claims(self, identity: str) -> Mapping[NodeId, SplitClaim]:
        told = {n.advert.node: n.advert.claims for n in self._mesh.neighbours()}
        told[self._mesh.me] = self.claims()
        return {node: claim for node, claims in told.items() for claim in claims if claim.model == identity}
