"""The composition root: builds every part, hands each its ports, runs them until cancelled.

Read it and you have seen the architecture. It holds no policy: what fits is the planner's to say, what lies
where the library's, who answers the gateway's.
"""

import asyncio
import functools
import logging
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from socket import socket
from typing import TYPE_CHECKING

from mesh_llm import __version__
from mesh_llm.console.snapshot import DiskModel, ModelStatus, Snapshot
from mesh_llm.core.errors import RequestRefused
from mesh_llm.core.machine import Device, Machine
from mesh_llm.core.progress import Report
from mesh_llm.core.quantities import human_bytes
from mesh_llm.engine.devices import find_devices
from mesh_llm.engine.supervisor import Supervisor
from mesh_llm.engine.whole.llama_server import LlamaServer
from mesh_llm.engine.whole.placement import engine_settings, facts_in_memory, served_model
from mesh_llm.models.catalogue import load_catalogue
from mesh_llm.models.library import Library, LocalModel, distinct
from mesh_llm.models.obtain import obtain
from mesh_llm.models.places import ModelPlaces
from mesh_llm.planner.capacity import memory_for_models, with_devices
from mesh_llm.planner.fit import BATCH, BATCH_ON_DEVICES, Fit, Wish
from mesh_llm.planner.sharing import fit_all
from mesh_llm.runtime import hardware
from mesh_llm.runtime.bell import Bell
from mesh_llm.runtime.clock import Clock
from mesh_llm.runtime.listening import EVERYWHERE, LOOPBACK, port_of, reserve
from mesh_llm.runtime.tasks import unwrapped

if TYPE_CHECKING:
    from mesh_llm.gateway.app import Gateway

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class NodeSettings:
    """What the command line says, checked."""

    models: tuple[str, ...]
    """References as a person writes them; empty: show instructions and the console only."""
    port: int
    console_port: int
    listen_all: bool
    api_key: str | None
    memory_bytes_max: int | None
    devices: tuple[str, ...]
    context_length: int | None
    slots: int
    places: ModelPlaces


@dataclass(frozen=True, slots=True)
class Doors:
    """What a node meets of the world, besides the network and its own files."""

    environment: Mapping[str, str]
    report: Report
    clock: Clock
    chance: random.Random
    """For keys and ids: a SystemRandom outside tests."""


async def run_node(settings: NodeSettings, doors: Doors) -> None:
    """Serve until cancelled. Raises MeshError where a model, the memory or a port says no."""
    if settings.listen_all and settings.api_key is None:
        raise RequestRefused(
            "--listen-all lets other machines in: give a key with --api-key or MESH_LLM_API_KEY"
        )
    with (
        reserve(EVERYWHERE if settings.listen_all else LOOPBACK, settings.port, "--port") as api,
        reserve(LOOPBACK, settings.console_port, "--console") as console,
    ):
        node = await Node.create(settings, doors, port_of(api))
        await node.run(api, console)


@dataclass(slots=True)
class Node:
    settings: NodeSettings
    doors: Doors
    machine: Machine
    supervisors: Sequence[Supervisor]
    changes: Bell
    api_port: int
    on_disk: tuple[DiskModel, ...] = ()

    @classmethod
    async def create(cls, settings: NodeSettings, doors: Doors, api_port: int) -> "Node":
        models = distinct([await obtain(name, settings.places, doors.report) for name in settings.models])
        devices, machine = await measure_machine(settings.devices, doors.environment)
        capacity = memory_for_models(machine, settings.memory_bytes_max)
        batch = BATCH_ON_DEVICES if machine.devices else BATCH
        wish = Wish(settings.context_length, settings.slots, batch)
        needs = [(model.name, facts_in_memory(model.facts, model.projector)) for model in models]
        fits = fit_all(needs, capacity, wish)
        changes = Bell()
        supervisors = [
            _supervise(model, fitted, machine, devices, doors, changes)
            for model, fitted in zip(models, fits, strict=True)
        ]
        return cls(settings, doors, machine, supervisors, changes, api_port)

    async def run(self, api: socket, console: socket) -> None:
        with unwrapped():
            await self._run_parts(api, console)

    async def _run_parts(self, api: socket, console: socket) -> None:
        async with asyncio.TaskGroup() as tasks:
            for supervisor in self.supervisors:
                tasks.create_task(supervisor.run(), name=f"supervisor {supervisor.model.name}")
            tasks.create_task(self._answer(api, console), name="http")
            tasks.create_task(self._look_at_disk(), name="disk")

    async def _answer(self, api: socket, console: socket) -> None:
        """Gateway and console. Their HTTP library takes a quarter of a second to import: that is done here,
        in a thread, while the engines load."""
        await asyncio.to_thread(import_module, "mesh_llm.gateway.app")
        from mesh_llm.console.app import Console
        from mesh_llm.gateway.app import Gateway

        gateway = Gateway(
            lambda: self.supervisors,
            api_key=self.settings.api_key,
            clock=self.doors.clock,
            chance=self.doors.chance,
            on_change=self.changes.ring,
        )
        ports = {"api_port": self.api_port, "console_port": port_of(console)}
        async with asyncio.TaskGroup() as tasks:
            if self.supervisors:
                logger.info("API: http://localhost:%(api_port)d/v1", ports, extra={"fields": ports})
                tasks.create_task(gateway.run(api), name="gateway")
            logger.info("console: http://localhost:%(console_port)d", ports, extra={"fields": ports})
            snapshot = functools.partial(self.snapshot, gateway)
            tasks.create_task(Console(snapshot, self.changes).run(console), name="console")

    async def _look_at_disk(self) -> None:
        """Beside the start, not before it: a store on a slow disk may take seconds."""
        self.on_disk = await asyncio.to_thread(_models_on_disk, self.settings.places)
        self.changes.ring()

    def snapshot(self, gateway: "Gateway") -> Snapshot:
        statistics = gateway.statistics()
        return Snapshot(
            version=__version__,
            api_port=self.api_port if self.supervisors else None,
            machine=self.machine,
            memory_bytes=memory_for_models(self.machine, self.settings.memory_bytes_max),
            models=tuple(ModelStatus(s.model, s.condition) for s in self.supervisors),
            on_disk=self.on_disk,
            requests_in_flight=statistics.in_flight,
            requests_waiting=statistics.queued,
        )


def _models_on_disk(places: ModelPlaces) -> tuple[DiskModel, ...]:
    models = Library(places, load_catalogue(places.own_catalogue)).models()
    return tuple(DiskModel(m.name, m.bytes, m.projector is not None) for m in models)


async def measure_machine(
    chosen: Sequence[str], environment: Mapping[str, str]
) -> tuple[tuple[Device, ...], Machine]:
    """All devices of the engine, and the machine with the chosen ones (none named: all).

    The engine is asked only where a driver is, since that takes a process and a moment.
    """
    devices = await find_devices(environment) if hardware.cards_present() else ()
    return devices, with_devices(hardware.measure(devices), chosen)


def _supervise(
    model: LocalModel,
    fitted: Fit,
    machine: Machine,
    devices: Sequence[Device],
    doors: Doors,
    changes: Bell,
) -> Supervisor:
    served = served_model(model, fitted, doors.clock.epoch())
    api_key = f"{doors.chance.getrandbits(128):032x}"
    settings = engine_settings(model, fitted, machine, devices, api_key)
    logger.info(
        "%s: %s, %s; context %d tokens (%s), %d at once; needs %s",
        served.name,
        served.facts.quantisation,
        human_bytes(served.bytes),
        served.context_length,
        served.kv_type,
        served.slots,
        human_bytes(fitted.need.total),
    )
    launch = functools.partial(LlamaServer.start, settings, doors.environment)
    return Supervisor(served, launch, doors.clock, doors.report, changes.ring)
