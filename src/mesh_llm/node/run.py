"""The composition root: builds every part, hands each its ports, runs them until stopped.

Read it and you have seen the architecture. It holds no policy: what fits is the planner's to say, what lies
where the library's, who answers the gateway's, who may be in the mesh's.
"""

import asyncio
from collections.abc import Generator
from contextlib import contextmanager
from importlib import import_module
from socket import socket
from typing import TYPE_CHECKING

from mesh_llm.core.errors import RequestRefused
from mesh_llm.node.own_models import OwnModels
from mesh_llm.node.settings import Doors, NodeSettings
from mesh_llm.runtime.bell import Bell
from mesh_llm.runtime.listening import EVERYWHERE, LOOPBACK, reserve
from mesh_llm.runtime.tasks import unwrapped

if TYPE_CHECKING:
    from mesh_llm.node.serving import Serving

SERVING = "mesh_llm.node.serving"
"""Imported in a thread: HTTP and the mesh take half a second, while which the engines load already."""


async def run_node(settings: NodeSettings, doors: Doors, stop: asyncio.Event) -> None:
    """Until `stop` is set: then requests may end (`drain_s`), and the mesh is told. Cancelling stops at once.

    Raises MeshError where a model, the memory, a port or an invite says no.
    """
    if settings.listen_all and settings.api_key is None:
        raise RequestRefused(
            "--listen-all lets other machines in: give a key with --api-key or MESH_LLM_API_KEY"
        )
    with (
        reserve(EVERYWHERE if settings.listen_all else LOOPBACK, settings.port, "--port") as api,
        reserve(LOOPBACK, settings.console_port, "--console") as console,
        _home(settings),
        unwrapped(),
    ):
        await Node(settings, doors).run(api, console, stop)


@contextmanager
def _home(settings: NodeSettings) -> Generator[None]:
    """One node a home, where the node keeps anything there."""
    if settings.alone or settings.ephemeral:
        yield
        return
    from mesh_llm.mesh.home.running import only_node_of

    with only_node_of(settings.home):
        yield


class Node:
    def __init__(self, settings: NodeSettings, doors: Doors) -> None:
        self._settings = settings
        self._doors = doors
        self._changes = Bell()
        self._models = OwnModels(settings, doors, self._changes.ring)
        self._serving: Serving | None = None

    async def run(self, api: socket, console: socket, stop: asyncio.Event) -> None:
        async with asyncio.TaskGroup() as tasks:
            work = tasks.create_task(self._work(api, console), name="node")
            await stop.wait()
            if self._serving is not None:
                await self._serving.wind_down()
            work.cancel()

    async def _work(self, api: socket, console: socket) -> None:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._models.run(), name="models")
            if not self._may_have_company():
                await self._models.planned.wait()
            parts = await asyncio.to_thread(import_module, SERVING)
            serving = parts.Serving(self._settings, self._doors, self._models, self._changes)
            self._serving = serving
            await serving.run(api, console)

    def _may_have_company(self) -> bool:
        """Whether others may answer before this node's own models do."""
        settings = self._settings
        return bool(settings.join or settings.client or (settings.home / "mesh.json").exists())
