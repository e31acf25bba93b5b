"""The models that this node runs itself: obtained, fitted into memory, each under a supervisor."""

import asyncio
import functools
import logging
from collections.abc import Callable, Mapping, Sequence

from mesh_llm.core.errors import ModelNotFound
from mesh_llm.core.machine import Device, Machine
from mesh_llm.core.quantities import human_bytes
from mesh_llm.core.serving import Stopped
from mesh_llm.engine.devices import find_devices
from mesh_llm.engine.supervisor import Supervisor
from mesh_llm.engine.whole.llama_server import LlamaServer
from mesh_llm.engine.whole.placement import engine_settings, facts_in_memory, served_model
from mesh_llm.models.library import LocalModel, distinct
from mesh_llm.models.obtain import obtain
from mesh_llm.node.settings import Doors, NodeSettings
from mesh_llm.planner.capacity import memory_for_models, with_devices
from mesh_llm.planner.fit import BATCH, BATCH_ON_DEVICES, Fit, Wish
from mesh_llm.planner.sharing import fit_all
from mesh_llm.runtime import hardware

logger = logging.getLogger(__name__)


class OwnModels:
    def __init__(self, settings: NodeSettings, doors: Doors, on_change: Callable[[], None]) -> None:
        self._settings = settings
        self._doors = doors
        self._on_change = on_change
        self.supervisors: tuple[Supervisor, ...] = ()
        self.machine = hardware.measure(())
        """With its devices once the engine has been asked for them."""
        self.planned = asyncio.Event()
        """Set when `supervisors` holds all models."""

    @property
    def memory_bytes(self) -> int:
        """What models may use here: of a client's machine nothing."""
        if self._settings.client:
            return 0
        return memory_for_models(self.machine, self._settings.memory_bytes_max)

    def fetching(self) -> tuple[str, ...]:
        """What the person named and is not ready to be loaded yet."""
        return () if self.planned.is_set() else self._settings.models

    async def run(self) -> None:
        """Until cancelled. Raises MeshError where a model or the memory says no."""
        models = distinct(
            [await obtain(name, self._settings.places, self._doors.report) for name in self._settings.models]
        )
        devices, self.machine = await measure_machine(self._settings.devices, self._doors.environment)
        fits = self._fit(models)
        self.supervisors = tuple(
            self._supervise(model, fitted, devices) for model, fitted in zip(models, fits, strict=True)
        )
        self.planned.set()
        self._on_change()
        async with asyncio.TaskGroup() as tasks:
            for supervisor in self.supervisors:
                tasks.create_task(self._run(supervisor), name=f"supervisor {supervisor.model.name}")

    def find(self, name: str) -> Supervisor:
        """Raises ModelNotFound."""
        for supervisor in self.supervisors:
            model = supervisor.model
            if name.lower() in (known.lower() for known in (model.name, *model.aliases)):
                return supervisor
        known = ", ".join(sorted(supervisor.model.name for supervisor in self.supervisors)) or "none"
        raise ModelNotFound(f"This node runs no model `{name}`. It runs: {known}.")

    async def _run(self, supervisor: Supervisor) -> None:
        await supervisor.run()
        if isinstance(supervisor.condition, Stopped):  # it was dropped
            self.supervisors = tuple(each for each in self.supervisors if each is not supervisor)
            self._on_change()

    def _fit(self, models: Sequence[LocalModel]) -> list[Fit]:
        batch = BATCH_ON_DEVICES if self.machine.devices else BATCH
        wish = Wish(self._settings.context_length, self._settings.slots, batch)
        needs = [(model.name, facts_in_memory(model.facts, model.projector)) for model in models]
        return list(fit_all(needs, self.memory_bytes, wish))

    def _supervise(self, model: LocalModel, fitted: Fit, devices: Sequence[Device]) -> Supervisor:
        served = served_model(model, fitted, self._doors.clock.epoch())
        api_key = f"{self._doors.chance.getrandbits(128):032x}"
        settings = engine_settings(model, fitted, self.machine, devices, api_key)
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
        launch = functools.partial(LlamaServer.start, settings, self._doors.environment)
        return Supervisor(served, launch, self._doors.clock, self._doors.report, self._on_change)


async def measure_machine(
    chosen: Sequence[str], environment: Mapping[str, str]
) -> tuple[tuple[Device, ...], Machine]:
    """All devices of the engine, and the machine with the chosen ones (none named: all).

    The engine is asked only where a driver is, since that takes a process and a moment.
    """
    devices = await find_devices(environment) if hardware.cards_present() else ()
    return devices, with_devices(hardware.measure(devices), chosen)
