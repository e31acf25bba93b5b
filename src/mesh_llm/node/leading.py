"""One model that this node leads: what the mesh looks like to its plan, and the head's process."""

import logging
import tempfile
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from mesh_llm.core.errors import Unavailable
from mesh_llm.core.ids import NodeId
from mesh_llm.core.progress import Progress
from mesh_llm.core.serving import ServedModel
from mesh_llm.core.stages import SplitClaim
from mesh_llm.engine.head.pipeline_head import PipelineHead
from mesh_llm.engine.head.ring_state import RingState, RingUp
from mesh_llm.engine.head.settings import HeadSettings
from mesh_llm.mesh.service import Mesh
from mesh_llm.models.gguf.stageable import embedding_scale, entrance_name
from mesh_llm.models.stages.store import StageStore
from mesh_llm.node.landlord import SOCKET
from mesh_llm.node.own_models import OwnModels
from mesh_llm.node.own_speed import OwnSpeed
from mesh_llm.node.settings import Doors, NodeSettings
from mesh_llm.node.split_sources import cache_key
from mesh_llm.planner.capacity import shares
from mesh_llm.planner.split_plan import Plan, Stages
from mesh_llm.planner.split_view import SplitView, SplitWish, StageHost
from mesh_llm.planner.splitting import plan
from mesh_llm.splits.assembly import OnRing
from mesh_llm.splits.leases import Lease, Leases
from mesh_llm.splits.scouting import look_around
from mesh_llm.splits.split_source import SplitSource
from mesh_llm.splits.surveying import Surveyor

logger = logging.getLogger(__name__)

RETRY_AFTER_S = 5

FETCHING_SHARE = 0.5
"""Of the head's progress: its file is read and written, then read once more."""


def served_split(source: SplitSource, slots: int, now: float) -> ServedModel:
    """As it is served before its first plan. `now` in seconds since the epoch."""
    return ServedModel(
        name=source.name,
        aliases=source.aliases,
        facts=source.cuttable.facts,
        bytes=source.bytes,
        context_length=source.cuttable.facts.context_length,
        kv_type="f16",
        slots=slots,
        vision=False,
        created=int(now),
        embeddings=False,
    )


@dataclass(frozen=True, slots=True)
class Outlook:
    """What the leader saw last, and planned of it."""

    view: SplitView
    plan: Plan


class Leading:
    """`splits.split_model.Scene`, and the launcher of its head."""

    def __init__(
        self,
        source: SplitSource,
        settings: NodeSettings,
        doors: Doors,
        models: OwnModels,
        mesh: Mesh,
        surveyor: Surveyor,
        speed: OwnSpeed,
        store: StageStore,
        leases: Leases,
        claims: Callable[[str], Mapping[NodeId, SplitClaim]],
    ) -> None:
        """`claims`: of a model, of all living members and of this node."""
        self._source = source
        self._settings = settings
        self._doors = doors
        self._models = models
        self._mesh = mesh
        self._surveyor = surveyor
        self._speed = speed
        self._store = store
        self._leases = leases
        self._claims = claims
        self.outlook: Outlook | None = None
        """None before the first plan."""

    def claims(self, model: str) -> Mapping[NodeId, SplitClaim]:
        return {node: claim for node, claim in self._claims(model).items() if node != self._mesh.me}

    async def plan(self) -> Plan:
        candidates = {
            neighbour.advert.node: neighbour.advert.name
            for neighbour in self._mesh.neighbours()
            if neighbour.advert.role != "client"
        }
        room = max(0, self._models.room_bytes - self._leases.bytes_lent)
        speed = await self._speed.get() if candidates else 0.0
        me = StageHost(self._mesh.me, room, speed, self._settings.name)
        view = await look_around(me, candidates, self._surveyor)
        wish = SplitWish(
            self._settings.context_length, self._settings.slots, self._models.batch, self._settings.stages
        )
        planned = plan(self._source.cuttable, view, wish)
        self.outlook = Outlook(view, planned)
        return planned

    @asynccontextmanager
    async def launch_head(
        self, planned: Stages, on_progress: Callable[[float], None], on_ring: OnRing
    ) -> AsyncGenerator[PipelineHead]:
        source, layers = self._source, planned.stages[-1].layers
        lease = Lease(source.identity, self._mesh.me, planned.stages[-1].need.total)
        refusal = self._leases.ask(lease, self._models.room_bytes, self._claims(source.identity))
        if refusal is not None:
            raise Unavailable(refusal, retry_after_s=RETRY_AFTER_S)

        def fetched(progress: Progress) -> None:
            if progress.total:
                on_progress(FETCHING_SHARE * progress.done / progress.total)

        def loaded(fraction: float) -> None:
            on_progress(FETCHING_SHARE + (1 - FETCHING_SHARE) * fraction)

        try:
            held = self._store.stage(
                cache_key(source.identity, source.parts),
                layers,
                is_head=True,
                parts=source.headers,
                source=source.ranges,
                report=fetched,
            )
            async with held as file:
                with tempfile.TemporaryDirectory(prefix="mesh-llm-") as folder:
                    settings = self._head_settings(planned, file, Path(folder) / SOCKET)
                    ring = self._hear(on_ring)
                    async with PipelineHead.start(settings, self._doors.environment, loaded, ring) as head:
                        yield head
        finally:
            self._leases.end(lease)

    def _hear(self, on_ring: OnRing) -> Callable[[RingState], None]:
        def hear(state: RingState) -> None:
            if isinstance(state, RingUp):
                logger.info(
                    "the ring of %s is up: %s, %.1f ms a lap",
                    self._source.name,
                    state.activations,
                    1000 * state.lap_seconds,
                )
            on_ring(isinstance(state, RingUp))

        return hear

    def _head_settings(self, planned: Stages, file: Path, socket: Path) -> HeadSettings:
        machine = self._models.machine
        return HeadSettings(
            model_path=str(file),
            name=self._source.name,
            api_key=f"{self._doors.chance.getrandbits(128):032x}",
            context_length=planned.context,
            sequences=planned.sequences,
            batch=planned.batch,
            kv_type=planned.kv_type,
            threads=machine.cores,
            gpu_layers=-1 if machine.devices else 0,
            device_shares=shares(self._models.all_devices, machine.devices) if machine.devices else (),
            stages=len(planned.stages) - 1,
            activations=self._settings.activations,
            embedding_scale=embedding_scale(self._source.headers),
            socket_path=str(socket),
            entrance=entrance_name(self._source.headers),
        )
