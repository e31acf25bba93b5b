"""The head of a split model as its parent sees it: loaded, its ring up or down, ended.

Counterpart: `child.py`. To the supervisor it is an engine like `engine/whole/llama_server.py`; whoever builds
the ring connects to `socket_path` and follows `on_ring`.
"""

import asyncio
import contextlib
import logging
from collections.abc import AsyncGenerator, Callable, Mapping

from mesh_llm.core.serving import Endpoint
from mesh_llm.engine.child import EngineChild, loaded_share
from mesh_llm.engine.head import ring_state
from mesh_llm.engine.head.ring_state import RingState, RingUp
from mesh_llm.engine.head.settings import HeadSettings

logger = logging.getLogger(__name__)


class PipelineHead:
    """Use as `async with PipelineHead.start(...) as head`: leaving stops the child, whatever happened."""

    def __init__(self, child: EngineChild, settings: HeadSettings, served: asyncio.Event) -> None:
        self._child = child
        self._settings = settings
        self._served = served

    @classmethod
    @contextlib.asynccontextmanager
    async def start(
        cls,
        settings: HeadSettings,
        environment: Mapping[str, str],
        on_loaded: Callable[[float], None],
        on_ring: Callable[[RingState], None],
    ) -> AsyncGenerator["PipelineHead"]:
        """`on_loaded` gets the share of the weights that is loaded, 0 to 1; `on_ring` each change of the
        ring, the first when it is up. Raises EngineFailed."""
        served = asyncio.Event()

        def hear(line: str) -> None:
            share = loaded_share(line)
            if share is not None:
                on_loaded(share)
            if line.startswith(f"{ring_state.WORD} "):
                state = ring_state.from_text(line.removeprefix(f"{ring_state.WORD} "))
                if isinstance(state, RingUp):
                    served.set()
                on_ring(state)

        module = "mesh_llm.engine.head.child"
        start = EngineChild.start(settings.name, module, settings.to_line(), environment, hear)
        async with start as child:
            yield cls(child, settings, served)

    @property
    def pid(self) -> int:
        return self._child.pid

    @property
    def socket_path(self) -> str:
        """Listened on from `wait_until_loaded` on."""
        return self._settings.socket_path

    async def wait_until_loaded(self) -> Endpoint:
        """Returns once the ring may be built. Raises EngineFailed with its own reason if it ends instead."""
        url = str((await self._child.wait_until_ready())["url"])
        return Endpoint(url=url, api_key=self._settings.api_key)

    async def wait_until_ready(self) -> Endpoint:
        """Returns once the ring has been up, so that requests are answered. What befalls it later is told to
        `on_ring`, and to those who ask as 503. Raises EngineFailed if it ends instead."""
        endpoint = await self.wait_until_loaded()
        ended = False
        async with asyncio.TaskGroup() as tasks:
            up = tasks.create_task(self._served.wait())
            end = tasks.create_task(self._child.wait_for_end())
            await asyncio.wait((up, end), return_when=asyncio.FIRST_COMPLETED)
            ended = not up.done()
            up.cancel()
            end.cancel()
        if ended:
            await self._child.fail()
        return endpoint

    async def wait_for_end(self) -> str:
        """Returns why it ended: how, and its last words."""
        return await self._child.wait_for_end()
