"""One stage's process as its parent sees it: started, ready, ended. `child.py` is the other end.

Bytes of the ring do not pass here: who bridges them connects to the stage's socket.
"""

import contextlib
from collections.abc import AsyncGenerator, Callable, Mapping
from dataclasses import dataclass

from mesh_llm.engine.child import EngineChild, loaded_share
from mesh_llm.engine.stage.settings import StageSettings


@dataclass(frozen=True, slots=True)
class StageReady:
    socket_path: str
    width: int
    """Elements of a hidden state."""
    resident_bytes: int
    """Of the process once its model is loaded and its KV cache is taken, as the system counts it."""


class StageWorker:
    """Use as `async with StageWorker.start(...) as worker`: leaving stops the child, whatever happened."""

    def __init__(self, child: EngineChild) -> None:
        self._child = child

    @classmethod
    @contextlib.asynccontextmanager
    async def start(
        cls, settings: StageSettings, environment: Mapping[str, str], on_loaded: Callable[[float], None]
    ) -> AsyncGenerator["StageWorker"]:
        """`on_loaded` gets the share of the weights that is loaded, 0 to 1. Raises EngineFailed."""

        def hear(line: str) -> None:
            share = loaded_share(line)
            if share is not None:
                on_loaded(share)

        start = EngineChild.start(
            settings.name, "mesh_llm.engine.stage.child", settings.to_line(), environment, hear
        )
        async with start as child:
            yield cls(child)

    @property
    def pid(self) -> int:
        return self._child.pid

    async def wait_until_ready(self) -> StageReady:
        """Returns once it listens. Raises EngineFailed with its own reason if it ends instead."""
        return StageReady(**await self._child.wait_until_ready())

    async def wait_for_end(self) -> str:
        """Returns why it ended: how, and its last words."""
        return await self._child.wait_for_end()
