"""The head of a split model as its parent sees it: started, ready, its ring up or down, broken, stopped.

`child.py` is the other end. To the supervisor it is an engine like `engine/whole/llama_server.py`; whoever
builds the ring connects to `socket_path` and follows `on_ring`.
"""

import asyncio
import contextlib
import json
import logging
import sys
from collections.abc import AsyncGenerator, Callable, Mapping

from mesh_llm.core.errors import EngineFailed
from mesh_llm.core.serving import Endpoint
from mesh_llm.engine.head import ring_state
from mesh_llm.engine.head.ring_state import RingState
from mesh_llm.engine.head.settings import HeadSettings
from mesh_llm.engine.whole.llama_server import SECRETS, explain
from mesh_llm.runtime.children import Child
from mesh_llm.runtime.tasks import beside

logger = logging.getLogger(__name__)

ENVIRONMENT = {"GOMP_SPINCOUNT": "0", "GGML_NO_BACKTRACE": "1"}
"""Why: `engine/whole/llama_server.py`."""


class PipelineHead:
    """Use as `async with PipelineHead.start(...) as head`: leaving stops the child, whatever happened."""

    def __init__(
        self,
        child: Child,
        settings: HeadSettings,
        on_loaded: Callable[[float], None],
        on_ring: Callable[[RingState], None],
    ) -> None:
        self._child = child
        self._settings = settings
        self._on_loaded = on_loaded
        self._on_ring = on_ring
        self._address: str | None = None
        self._spoken = asyncio.Event()
        self._tail_read = asyncio.Event()

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
        try:
            child = await Child.spawn(
                f"head {settings.name}",
                [sys.executable, "-P", "-m", "mesh_llm.engine.head.child"],
                {key: value for key, value in environment.items() if key not in SECRETS} | ENVIRONMENT,
                settings.to_line(),
            )
        except OSError as error:
            raise EngineFailed(f"the head's process cannot be started: {error}") from error
        head = cls(child, settings, on_loaded, on_ring)
        async with beside(stdout=head._listen(), stderr=head._read_tail()):
            try:
                yield head
            finally:
                await asyncio.shield(child.stop())

    @property
    def pid(self) -> int:
        return self._child.pid

    @property
    def socket_path(self) -> str:
        """Listened on from `wait_until_ready` on."""
        return self._settings.socket_path

    async def wait_until_ready(self) -> Endpoint:
        """Returns once it has loaded and listens, whether or not its ring is up: `on_ring` tells that. Raises
        EngineFailed with its own reason if it does not."""
        await self._spoken.wait()
        if self._address is None:
            await self._child.stop()
            raise EngineFailed(await self.wait_for_end())
        return Endpoint(url=self._address, api_key=self._settings.api_key)

    async def wait_for_end(self) -> str:
        """Returns why it ended: how, and its last words."""
        status = await self._child.wait()
        await self._tail_read.wait()
        return explain(status, self._child.tail)

    async def _listen(self) -> None:
        """To the end: a full pipe would block the child."""
        async for line in self._child.lines():
            word, _, text = line.partition(" ")
            try:
                self._take(word, text)
            except (ValueError, KeyError, TypeError):
                logger.warning("the head of %s said what nobody knows: %.200s", self._settings.name, line)
        self._spoken.set()

    def _take(self, word: str, text: str) -> None:
        if word == "loading":
            self._on_loaded(float(json.loads(text)["fraction"]))
        elif word == "ready":
            self._address = str(json.loads(text)["url"])
            self._spoken.set()
        elif word == ring_state.WORD:
            self._on_ring(ring_state.from_text(text))

    async def _read_tail(self) -> None:
        await self._child.collect_tail()
        self._tail_read.set()
