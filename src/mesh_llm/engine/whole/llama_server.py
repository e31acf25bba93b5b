"""One llama-server as its parent sees it: started, ready, broken, stopped. `child.py` is the other end."""

import asyncio
import contextlib
import json
import re
import sys
from collections.abc import AsyncGenerator, Callable, Mapping
from typing import Any
from urllib.parse import urlsplit

from mesh_llm.core.errors import EngineFailed
from mesh_llm.core.serving import Endpoint
from mesh_llm.engine.whole.settings import EngineSettings
from mesh_llm.runtime.children import Child, describe_exit
from mesh_llm.runtime.tasks import beside

STATE = "cmd_child_to_router:state:"
"""llama-server's own protocol between a router and its children, switched on by LLAMA_SERVER_ROUTER_PORT.
Here it only carries load progress."""

ENVIRONMENT = {
    "LLAMA_SERVER_ROUTER_PORT": "1",
    # Two engines whose threads spin for work starve each other to 0.03 x; waiting at once costs a fifth of
    # the quiet speed and keeps 0.74 x beside a busy core (docs/decisions/0002).
    "GOMP_SPINCOUNT": "0",
    "GGML_NO_BACKTRACE": "1",  # an abort prints one line instead of running gdb for seconds
}
SECRETS = ("MESH_LLM_API_KEY", "HF_TOKEN")
"""Not the engine's business, so not in its environment."""

REASON_LINES = 3
OPENMP_MISSING = "it needs OpenMP, which this system lacks: sudo apt install libgomp1 (dnf: libgomp)"
STAMP = re.compile(r"^[\d.]+ [A-Z] ")
"""llama.cpp begins each line with the time since its start and a level: `0.00.007.024 E `."""
AFTERMATH = re.compile(r"failed to load model|exiting due to model loading error")
"""What it says after the reason, once per layer of its code."""


class LlamaServer:
    """Use as `async with LlamaServer.start(...) as server`: leaving stops the child, whatever happened."""

    def __init__(self, child: Child, settings: EngineSettings, on_loaded: Callable[[float], None]) -> None:
        self._child = child
        self._settings = settings
        self._on_loaded = on_loaded
        self._address: str | None = None
        self._spoken = asyncio.Event()
        self._tail_read = asyncio.Event()

    @classmethod
    @contextlib.asynccontextmanager
    async def start(
        cls, settings: EngineSettings, environment: Mapping[str, str], on_loaded: Callable[[float], None]
    ) -> AsyncGenerator["LlamaServer"]:
        """`on_loaded` gets the share of the weights that is loaded, 0 to 1. Raises EngineFailed."""
        try:
            child = await Child.spawn(
                f"engine {settings.name}",
                [sys.executable, "-P", "-m", "mesh_llm.engine.whole.child"],
                {key: value for key, value in environment.items() if key not in SECRETS} | ENVIRONMENT,
                settings.to_line(),
            )
        except OSError as error:
            raise EngineFailed(f"the engine's process cannot be started: {error}") from error
        server = cls(child, settings, on_loaded)
        async with beside(stdout=server._listen(), stderr=server._read_tail()):
            try:
                yield server
            finally:
                await asyncio.shield(child.stop())

    @property
    def pid(self) -> int:
        return self._child.pid

    async def wait_until_ready(self) -> Endpoint:
        """Returns once it has loaded and answers. Raises EngineFailed with its own reason if it does not."""
        await self._spoken.wait()
        if self._address is None or not await _is_healthy(self._address):
            await self._child.stop()  # also one that lives but does not answer
            raise EngineFailed(await self.wait_for_end())
        return Endpoint(url=self._address, api_key=self._settings.api_key)

    async def wait_for_end(self) -> str:
        """Returns why it ended: how, and its last words."""
        status = await self._child.wait()
        await self._tail_read.wait()
        return explain(status, self._child.tail)

    async def _listen(self) -> None:
        """To the end, also after the last word we need: a full pipe would block the child."""
        async for line in self._child.lines():
            if line.startswith(STATE):
                _report(line.removeprefix(STATE), self._on_loaded)
            elif line.startswith("ready "):
                self._address = json.loads(line.removeprefix("ready "))["url"]
                self._spoken.set()
        self._spoken.set()

    async def _read_tail(self) -> None:
        await self._child.collect_tail()
        self._tail_read.set()


async def _is_healthy(address: str) -> bool:
    """Whether `GET /health` says 200, as it must once the engine has said that it is ready."""
    url = urlsplit(address)
    try:
        reader, writer = await asyncio.open_connection(url.hostname, url.port)
    except OSError:
        return False
    try:
        writer.write(b"GET /health HTTP/1.0\r\n\r\n")
        return (await reader.readline()).split()[1:2] == [b"200"]
    except OSError:
        return False
    finally:
        writer.close()


def explain(status: int, tail: tuple[str, ...]) -> str:
    """One line for people: the exit and the last lines of standard error that say something."""
    if any("libgomp" in line for line in tail):
        return OPENMP_MISSING
    lines = [STAMP.sub("", line).strip() for line in tail]
    telling = [line for line in lines if line and not AFTERMATH.search(line)]
    return ": ".join([describe_exit(status), " | ".join(telling[-REASON_LINES:])]).removesuffix(": ")


def _report(text: str, on_loaded: Callable[[float], None]) -> None:
    """Of `{"state": "loading", "payload": {"stages": [...], "current": ..., "value": 0.4}}`."""
    try:
        message: dict[str, Any] = json.loads(text)
    except ValueError:
        return  # a line of another version; progress is a comfort, not a need
    payload: dict[str, Any] = message.get("payload") or {}
    value = payload.get("value")
    if message.get("state") == "loading" and isinstance(value, int | float):
        on_loaded(_overall(float(value), payload))


def _overall(value: float, payload: dict[str, Any]) -> float:
    """Several stages (weights, draft, projector) follow each other, each from 0 to 1."""
    stages: list[str] = payload.get("stages") or []
    current = payload.get("current")
    before = stages.index(current) if current in stages else 0
    return min(1.0, (before + value) / max(1, len(stages)))
