"""The models that this node runs itself: obtained, fitted into memory, each under a supervisor."""

import asyncio
import functools
import logging
from collections.abc import Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING

from mesh_llm.core.errors import DoesNotFit
from mesh_llm.core.machine import Device, Machine
from mesh_llm.core.model import ModelFacts
from mesh_llm.core.quantities import human_bytes
from mesh_llm.core.serving import Stopped
from mesh_llm.engine.devices import find_devices
from mesh_llm.engine.supervisor import Supervisor
from mesh_llm.engine.whole.llama_server import LlamaServer
from mesh_llm.engine.whole.placement import engine_settings, facts_in_memory, served_model
from mesh_llm.models.catalogue import load_catalogue
from mesh_llm.models.library import Library, LocalModel, distinct
from mesh_llm.models.obtain import obtain, wanted_from_hub
from mesh_llm.node.settings import Doors, NodeSettings
from mesh_llm.planner.capacity import memory_for_models, with_devices
from mesh_llm.planner.fit import BATCH, BATCH_ON_DEVICES, Fit, Wish, least
from mesh_llm.planner.sharing import fit_all
from mesh_llm.runtime import hardware

if TYPE_CHECKING:
    from mesh_llm.models.hub_model import HubModel

logger = logging.getLogger(__name__)


GiveBack = Callable[[], None]


class OwnModels:
    def __init__(self, settings: NodeSettings, doors: Doors, on_change: Callable[[], None]) -> None:
        self._settings = settings
        self._doors = doors
        self._on_change = on_change
        self.supervisors: tuple[Supervisor, ...] = ()
        self.machine = hardware.measure(())
        """With its devices once the engine has been asked for them."""
        self.planned = asyncio.Event()
        """Set when `supervisors` and `to_split` hold all models."""
        self.to_split: tuple[LocalModel | HubModel, ...] = ()
        """Models that run over several nodes, or would. None is fetched for it that is not on this disk."""
        self.whole: tuple[LocalModel, ...] = ()
        """That this node was to serve whole, from its disk."""
        self.all_devices: tuple[Device, ...] = ()
        """That the engine sees, chosen or not."""
        self._bytes_taken = 0
        self._give_back: dict[Supervisor, GiveBack] = {}

    @property
    def memory_bytes(self) -> int:
        """What models may use here: of a client's machine nothing."""
        if self._settings.client:
            return 0
        return memory_for_models(self.machine, self._settings.memory_bytes_max)

    @property
    def room_bytes(self) -> int:
        """What is left for stages beside the models that this node runs whole."""
        return max(0, self.memory_bytes - self._bytes_taken) if self.planned.is_set() else 0

    def take(self, count: int) -> GiveBack:
        """So many bytes are used by a model, until what this gives is called: once, when it has ended."""
        self._bytes_taken += count

        def give_back() -> None:
            self._bytes_taken -= count
            self._on_change()

        return give_back

    def fetching(self) -> tuple[str, ...]:
        """What the person named and is not ready to be loaded yet."""
        return () if self.planned.is_set() else self._settings.models

    async def run(self) -> None:
        """Until cancelled. Raises MeshError where a model or the memory says no."""
        self.all_devices, self.machine = await measure_machine(
            self._settings.devices, self._doors.environment
        )
        async with AsyncExitStack() as kept:
            self._plan([await self._find(name, kept) for name in self._settings.models])
            async with asyncio.TaskGroup() as tasks:
                for supervisor in self.supervisors:
                    tasks.create_task(self._run(supervisor), name=f"supervisor {supervisor.model.name}")
            await asyncio.Event().wait()  # what is kept may be in use

    async def _find(self, name: str, kept: AsyncExitStack) -> "LocalModel | HubModel":
        """Whole on this disk, fetched if need be. What is not here and would be split is only looked at."""
        places = self._settings.places
        library = Library(places, load_catalogue(places.own_catalogue))
        if wanted_from_hub(name, library) is not None:
            from mesh_llm.models.hub_model import look_at_hub
            from mesh_llm.models.web import Web

            web = await kept.enter_async_context(Web(places))
            there = await look_at_hub(name, places, web)
            if there is not None and self._must_be_split(there.facts):
                return there
        return await obtain(name, places, self._doors.report)

    def _plan(self, found: "Sequence[LocalModel | HubModel]") -> None:
        here = distinct([model for model in found if isinstance(model, LocalModel)])
        whole = [model for model in here if not self._must_be_split(_facts(model))]
        away = {model.name: model for model in found if not isinstance(model, LocalModel)}
        self.to_split = (*(model for model in here if model not in whole), *away.values())
        fits = self._fit(whole)
        self.whole = tuple(whole)
        self._give_back = {
            self.supervise(model, fitted): self.take(fitted.need.total)
            for model, fitted in zip(whole, fits, strict=True)
        }
        self.supervisors = tuple(self._give_back)
        self.planned.set()
        self._on_change()

    def supervise(self, model: LocalModel, fitted: Fit) -> Supervisor:
        """Of one engine on this machine, to be run."""
        served = served_model(model, fitted, self._doors.clock.epoch())
        api_key = f"{self._doors.chance.getrandbits(128):032x}"
        settings = engine_settings(model, fitted, self.machine, self.all_devices, api_key)
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

    async def _run(self, supervisor: Supervisor) -> None:
        await supervisor.run()
        if isinstance(supervisor.condition, Stopped):  # it was dropped
            self.supervisors = tuple(each for each in self.supervisors if each is not supervisor)
            self._give_back[supervisor]()

    @property
    def batch(self) -> int:
        return BATCH_ON_DEVICES if self.machine.devices else BATCH

    @property
    def wish(self) -> Wish:
        return Wish(self._settings.context_length, self._settings.slots, self.batch)

    def _must_be_split(self, facts: ModelFacts) -> bool:
        """Where somebody said so, and where it could not be alone on this machine. Raises RequestRefused."""
        if self._settings.split_by == "experts" and facts.experts < 2:
            return True  # which is refused with the reason by whoever cuts experts
        return self._settings.stages is not None or least(facts, self.wish).total > self.memory_bytes

    def shortfall(self, model: "LocalModel | HubModel") -> str:
        """Why it cannot be here whole, with numbers."""
        try:
            self._fit([model])
        except DoesNotFit as error:
            return str(error)
        return f"{model.name} was to be split."

    def _fit(self, models: "Sequence[LocalModel | HubModel]") -> list[Fit]:
        needs = [(model.name, _facts(model)) for model in models]
        return list(fit_all(needs, self.memory_bytes, self.wish))


def _facts(model: "LocalModel | HubModel") -> ModelFacts:
    """As it lies in memory. Of a model at the hub no projector is used."""
    return facts_in_memory(model.facts, model.projector if isinstance(model, LocalModel) else None)


async def measure_machine(
    chosen: Sequence[str], environment: Mapping[str, str]
) -> tuple[tuple[Device, ...], Machine]:
    """All devices of the engine, and the machine with the chosen ones (none named: all).

    The engine is asked only where a driver is, since that takes a process and a moment.
    """
    devices = await find_devices(environment) if hardware.cards_present() else ()
    return devices, with_devices(hardware.measure(devices), chosen)
