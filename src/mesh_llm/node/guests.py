"""Whole models that this node runs for a leader that has too little memory, each as long as its lease.

To the gateway they are backends like this node's own: the mesh sends requests here.
"""

from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from mesh_llm.core.errors import EngineFailed
from mesh_llm.core.serving import Failed, Loading, Ready, Stopped
from mesh_llm.engine.supervisor import Supervisor
from mesh_llm.models.gguf.header import read_file_header
from mesh_llm.models.gguf.model_facts import facts_of
from mesh_llm.models.library import LocalModel
from mesh_llm.models.threads import run_to_end
from mesh_llm.node.own_models import OwnModels
from mesh_llm.planner.fit import Wish, fit
from mesh_llm.runtime.tasks import beside
from mesh_llm.splits.messages import Assign


@dataclass(frozen=True, slots=True)
class GuestReady:
    """`splits.tenancy.StageReady`: nothing is ever linked to it."""

    socket_path: str = ""
    resident_bytes: int = 0


class Guest:
    """`splits.tenancy.Worker`."""

    def __init__(self, supervisor: Supervisor, on_loaded: Callable[[float], None]) -> None:
        self._supervisor = supervisor
        self._on_loaded = on_loaded

    async def wait_until_ready(self) -> GuestReady:
        """Raises EngineFailed."""
        while True:
            match self._supervisor.condition:
                case Ready():
                    return GuestReady()
                case Failed(reason):
                    raise EngineFailed(reason)
                case Loading(fraction):
                    self._on_loaded(fraction)
                case _:
                    pass
            await self._supervisor.wait_for_change()

    async def wait_for_end(self) -> str:
        """An engine that is started again has not ended."""
        while True:
            match self._supervisor.condition:
                case Failed(reason):
                    return reason
                case Stopped():
                    return "it was stopped"
                case _:
                    await self._supervisor.wait_for_change()


class Guests:
    def __init__(self, models: OwnModels, on_change: Callable[[], None]) -> None:
        """`on_change` is told when `supervisors` has become another."""
        self._models = models
        self._on_change = on_change
        self.supervisors: tuple[Supervisor, ...] = ()

    @asynccontextmanager
    async def launch(
        self, assign: Assign, file: Path, on_loaded: Callable[[float], None]
    ) -> AsyncGenerator[Guest]:
        """`file` holds the whole model. Raises DoesNotFit."""
        facts = facts_of([await run_to_end(read_file_header, file)])
        size = sum(part.size for part in assign.parts)
        model = LocalModel(assign.name, (file,), size, facts, None, (), (None,))
        fitted = fit(facts, assign.memory_bytes, wish_of(assign))
        supervisor = self._models.supervise(model, fitted)
        async with beside(guest=supervisor.run()):
            self.supervisors = (*self.supervisors, supervisor)
            self._on_change()
            try:
                yield Guest(supervisor, on_loaded)
            finally:
                self.supervisors = tuple(each for each in self.supervisors if each is not supervisor)
                self._on_change()


def wish_of(assign: Assign) -> Wish:
    return Wish(assign.context, assign.sequences, assign.batch)
