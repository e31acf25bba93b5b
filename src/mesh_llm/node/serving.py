"""What a node shows of itself: the gateway, the console, and its place in the mesh.

Apart from `run.py` because of what it imports: half a second in which the engines load already.
"""

import asyncio
import logging
import os
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from socket import socket

from mesh_llm import __version__
from mesh_llm.console.app import Console
from mesh_llm.console.control import Control
from mesh_llm.console.snapshot import DiskModel, MeshStatus, ModelStatus, Snapshot
from mesh_llm.core.errors import InviteFault, InviteRefused
from mesh_llm.core.ids import short
from mesh_llm.engine.external import ExternalServer
from mesh_llm.engine.supervisor import Supervisor
from mesh_llm.gateway.app import Gateway
from mesh_llm.gateway.backend import Backend
from mesh_llm.mesh.home.running import Running, announce
from mesh_llm.mesh.service import Description, Mesh
from mesh_llm.mesh.transport import Kind, NoRelays, Stream
from mesh_llm.models.catalogue import load_catalogue
from mesh_llm.models.library import Library
from mesh_llm.models.places import ModelPlaces
from mesh_llm.node.belonging import belonging
from mesh_llm.node.cut_model import CutModel
from mesh_llm.node.neighbourhood import Neighbourhood
from mesh_llm.node.own_models import OwnModels
from mesh_llm.node.settings import Doors, NodeSettings
from mesh_llm.node.splitting import Splitting
from mesh_llm.node.undecided_mixture import UndecidedMixture
from mesh_llm.node.verbs import NodeVerbs
from mesh_llm.runtime.bell import Bell
from mesh_llm.runtime.listening import listen, port_of
from mesh_llm.splits.split_model import SplitModel

logger = logging.getLogger(__name__)

RELAY_SECONDS_MAX = 3.0
"""An invite waits so long for the address of a relay; without one it works where nodes reach each other."""

POLL_S = 0.1


class Serving:
    def __init__(self, settings: NodeSettings, doors: Doors, models: OwnModels, changes: Bell) -> None:
        self._settings = settings
        self._doors = doors
        self._models = models
        self._changes = changes
        self._externals = [
            ExternalServer(endpoint, doors.clock, changes.ring) for endpoint in settings.endpoints
        ]
        self._mesh: Mesh | None = None
        self._neighbourhood: Neighbourhood | None = None
        self._splitting: Splitting | None = None
        self._answers: Mapping[Kind, Callable[[Stream], Awaitable[None]]] = {}
        self._gateway: Gateway
        self._is_shown = False
        """Whether anybody could have asked yet; before, the node is still on its way into the mesh."""
        self._on_disk: tuple[DiskModel, ...] = ()
        self._token: str | None = None
        self._api_port: int | None = None

    async def run(self, api: socket, console: socket) -> None:
        """Until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            for server in self._externals:
                tasks.create_task(server.run(), name=repr(server))
            tasks.create_task(self._look_at_disk(), name="disk")
            if self._settings.alone:
                self._gateway = self._make_gateway()
                await self._show(api, console)
            else:
                await self._show_as_member(api, console)

    async def wind_down(self) -> None:
        """Nobody new is served; requests under way may end, within bounds; the mesh is told."""
        if not self._is_shown:
            return
        self._gateway.drain()
        busy = self._gateway.busy()
        if busy and self._settings.drain_s:
            logger.info(
                "stopping: %d requests are still being answered, up to %.0f s; Ctrl-C again stops now",
                busy,
                self._settings.drain_s,
            )
        with suppress(TimeoutError):
            async with asyncio.timeout(self._settings.drain_s):
                await self._gateway.wait_idle()
        if self._mesh is not None:
            await self._mesh.leave()

    async def _show_as_member(self, api: socket, console: socket) -> None:
        async with belonging(
            self._settings,
            self._doors,
            self._describe,
            dict.fromkeys((Kind.TUNNEL, Kind.STAGE, Kind.RING, Kind.BYTES, Kind.RANKING), self._answer),
            self._busy,
            self._changes,
        ) as mesh:
            self._mesh, self._neighbourhood = mesh, Neighbourhood(mesh)
            self._gateway = self._make_gateway()
            self._splitting = Splitting(
                self._settings, self._doors, self._models, mesh, self._gateway.busy_with, self._changes
            )
            self._answers = {Kind.TUNNEL: self._gateway.answer, **self._splitting.answers()}
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(mesh.run(), name="mesh")
                tasks.create_task(self._splitting.run(), name="splitting")
                tasks.create_task(self._print_invite(mesh), name="invite")
                tasks.create_task(self._mind_removal(mesh), name="removal")
                await self._show(api, console)

    async def _show(self, api: socket, console: socket) -> None:
        self._is_shown = True
        api_port = self._api_port = None if self._settings.alone else port_of(api)
        control_key = f"{self._doors.chance.getrandbits(128):032x}"
        verbs = NodeVerbs(self._settings, self._own_models, self._mesh, self._gateway, self._changes)
        page = Console(self._snapshot, self._changes, Control(verbs, control_key))
        async with asyncio.TaskGroup() as tasks:
            listen(console)
            if api_port is not None:
                listen(api)
                fields = {"api_port": api_port}
                logger.info("API: http://localhost:%(api_port)d/v1", fields, extra={"fields": fields})
                tasks.create_task(self._gateway.run(api), name="gateway")
            fields = {"console_port": port_of(console)}
            logger.info("console: http://localhost:%(console_port)d", fields, extra={"fields": fields})
            tasks.create_task(page.run(console), name="console")
            if not (self._settings.alone or self._settings.ephemeral):
                announce(self._settings.home, Running(os.getpid(), api_port, port_of(console), control_key))
            await asyncio.Event().wait()

    def _make_gateway(self) -> Gateway:
        return Gateway(
            self._backends,
            api_key=self._settings.api_key,
            clock=self._doors.clock,
            chance=self._doors.chance,
            on_change=self._changes.ring,
            mesh=self._neighbourhood,
            fetching=self._fetching,
        )

    def _fetching(self) -> Sequence[str]:
        """What was named and is not listed yet."""
        return self._models.fetching() or (
            self._splitting.looking_at() if self._splitting is not None else ()
        )

    def _backends(self) -> Sequence[Backend]:
        external = [backend for server in self._externals for backend in server.backends]
        guests = self._splitting.guests.supervisors if self._splitting is not None else ()
        return (*guests, *self._own_models(), *external)

    def _own_models(self) -> Sequence[Supervisor | SplitModel | UndecidedMixture | CutModel]:
        if self._splitting is None:
            return self._models.supervisors
        return (*self._models.supervisors, *self._splitting.split_models, *self._splitting.cuts.models)

    async def _answer(self, stream: Stream) -> None:
        await self._answers[stream.kind](stream)

    def _busy(self) -> int:
        return self._gateway.busy()

    def _describe(self) -> Description:
        return Description(
            name=self._settings.name,
            role=self._settings.role,
            program_version=__version__,
            memory_bytes=self._models.memory_bytes,
            models=self._gateway.offers(),
            on_disk=() if self._settings.client else tuple(model.name for model in self._on_disk),
            claims=self._splitting.claims() if self._splitting is not None else (),
        )

    async def _print_invite(self, mesh: Mesh) -> None:
        """As soon as the node knows where it can be reached."""
        if self._settings.client:
            return
        with suppress(TimeoutError):
            async with asyncio.timeout(0 if self._settings.relays == NoRelays() else RELAY_SECONDS_MAX):
                while mesh.addresses.relay is None:  # noqa: ASYNC110 - iroh's callbacks are not safe
                    await asyncio.sleep(POLL_S)
        self._token = mesh.invite(self._settings.invite_ttl_s)
        fields = {"invite": self._token}
        logger.info("invite: mesh-llm --join %(invite)s", fields, extra={"fields": fields})
        self._changes.ring()

    async def _mind_removal(self, mesh: Mesh) -> None:
        """A node that serves goes on alone; a client is of no use then."""
        await mesh.removed.wait()
        removed = InviteRefused(
            InviteFault.EXPELLED,
            f"This node was removed from mesh {short(mesh.id)}. To come back it needs a new invite, "
            "and a home of its own with --home.",
        )
        if self._settings.client:
            raise removed
        logger.error("%s", removed)

    async def _look_at_disk(self) -> None:
        """Beside the start, not before it: a store on a slow disk may take seconds."""
        self._on_disk = await asyncio.to_thread(_models_on_disk, self._settings.places)
        self._changes.ring()

    def _snapshot(self) -> Snapshot:
        statistics = self._gateway.statistics()
        speeds = {served.offer.name: served.tokens_per_second for served in self._gateway.offers()}
        busy = {row.name: row.in_flight + row.queued for row in statistics.models}
        return Snapshot(
            version=__version__,
            api_port=self._api_port,
            machine=self._models.machine,
            memory_bytes=self._models.memory_bytes,
            models=tuple(
                ModelStatus(
                    backend.model,
                    backend.condition,
                    busy.get(backend.model.name, 0),
                    speeds.get(backend.model.name, 0.0),
                )
                for backend in self._backends()
            ),
            on_disk=self._on_disk,
            requests_in_flight=statistics.in_flight,
            requests_waiting=statistics.queued,
            mesh=self._mesh_status(),
        )

    def _mesh_status(self) -> MeshStatus | None:
        if self._mesh is None or self._neighbourhood is None:
            return None
        return MeshStatus(
            node_id=self._mesh.me,
            node_name=self._settings.name,
            mesh_id=self._mesh.id,
            is_client=self._settings.client,
            token=self._token,
            peers=self._neighbourhood.peers(),
        )


def _models_on_disk(places: ModelPlaces) -> tuple[DiskModel, ...]:
    models = Library(places, load_catalogue(places.own_catalogue)).models()
    return tuple(DiskModel(m.name, m.bytes, m.projector is not None) for m in models)
