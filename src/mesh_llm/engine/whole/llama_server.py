"""One llama-server as its parent sees it: started, ready, broken, stopped. `child.py` is the other end."""

import asyncio
import contextlib
import json
from collections.abc import AsyncGenerator, Callable, Mapping
from typing import Any
from urllib.parse import urlsplit

from mesh_llm.core.serving import Endpoint
from mesh_llm.engine.child import EngineChild
from mesh_llm.engine.whole.settings import EngineSettings

STATE = "cmd_child_to_router:state:"
"""llama-server's own protocol between a router and its children, switched on by LLAMA_SERVER_ROUTER_PORT.
Here it only carries load progress."""

ENVIRONMENT = {"LLAMA_SERVER_ROUTER_PORT": "1"}
"""Beside what every engine gets."""


class LlamaServer:
    """Use as `async with LlamaServer.start(...) as server`: leaving stops the child, whatever happened."""

    def __init__(self, child: EngineChild, settings: EngineSettings) -> None:
        self._child = child
        self._settings = settings

    @classmethod
    @contextlib.asynccontextmanager
    async def start(
        cls, settings: EngineSettings, environment: Mapping[str, str], on_loaded: Callable[[float], None]
    ) -> AsyncGenerator["LlamaServer"]:
        """`on_loaded` gets the share of the weights that is loaded, 0 to 1. Raises EngineFailed."""

        def hear(line: str) -> None:
            if line.startswith(STATE):
                _report(line.removeprefix(STATE), on_loaded)

        module, line = "mesh_llm.engine.whole.child", settings.to_line()
        async with EngineChild.start(
            settings.name, module, line, {**environment, **ENVIRONMENT}, hear
        ) as child:
            yield cls(child, settings)

    @property
    def pid(self) -> int:
        return self._child.pid

    async def wait_until_ready(self) -> Endpoint:
        """Returns once it has loaded and answers. Raises EngineFailed with its own reason if it does not."""
        address: str = (await self._child.wait_until_ready())["url"]
        if not await _is_healthy(address):
            await self._child.fail()
        return Endpoint(url=address, api_key=self._settings.api_key)

    async def wait_for_end(self) -> str:
        """Returns why it ended: how, and its last words."""
        return await self._child.wait_for_end()


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
