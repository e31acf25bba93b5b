"""One engine process as its parent sees it: started, ready, ended and why. Counterpart: `parent.py`.

Knows neither what the engine computes nor whom it serves: `whole/`, `stage/` and `head/` say that.
"""

import asyncio
import contextlib
import json
import re
import sys
from collections.abc import AsyncGenerator, Callable, Mapping
from typing import Any

from mesh_llm.core.errors import EngineFailed
from mesh_llm.runtime.children import Child, describe_exit
from mesh_llm.runtime.tasks import beside

ENVIRONMENT = {
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
"""llama-server begins each line with the time since its start and a level: `0.00.007.024 E `."""
AFTERMATH = re.compile(r"failed to load model|exiting due to model loading error")
"""What it says after the reason, once per layer of its code."""


class EngineChild:
    """Use as `async with EngineChild.start(...) as child`: leaving stops it, whatever happened."""

    def __init__(self, child: Child, on_line: Callable[[str], None]) -> None:
        self._child = child
        self._on_line = on_line
        self._ready: dict[str, Any] | None = None
        self._spoken = asyncio.Event()
        self._tail_read = asyncio.Event()

    @classmethod
    @contextlib.asynccontextmanager
    async def start(
        cls,
        name: str,
        module: str,
        settings_line: bytes,
        environment: Mapping[str, str],
        on_line: Callable[[str], None],
    ) -> AsyncGenerator["EngineChild"]:
        """Run `python -m module`. `on_line` gets each line that it says but `ready`. Raises EngineFailed."""
        try:
            child = await Child.spawn(
                f"engine {name}",
                [sys.executable, "-P", "-m", module],
                {key: value for key, value in environment.items() if key not in SECRETS} | ENVIRONMENT,
                settings_line,
            )
        except OSError as error:
            raise EngineFailed(f"the engine's process cannot be started: {error}") from error
        engine = cls(child, on_line)
        async with beside(stdout=engine._listen(), stderr=engine._read_tail()):
            try:
                yield engine
            finally:
                await asyncio.shield(child.stop())

    @property
    def pid(self) -> int:
        return self._child.pid

    async def wait_until_ready(self) -> dict[str, Any]:
        """Returns what it says of itself once it is ready. Raises EngineFailed with its own reason if it
        ends instead."""
        await self._spoken.wait()
        if self._ready is None:
            await self.fail()
        assert self._ready is not None, "fail always raises"
        return self._ready

    async def fail(self) -> None:
        """Stop it, also where it lives but does not answer, and raise EngineFailed with its last words."""
        await self._child.stop()
        raise EngineFailed(await self.wait_for_end())

    async def wait_for_end(self) -> str:
        """Returns why it ended: how, and its last words."""
        status = await self._child.wait()
        await self._tail_read.wait()
        return explain(status, self._child.tail)

    async def _listen(self) -> None:
        """To the end, also after the last word we need: a full pipe would block the child."""
        async for line in self._child.lines():
            if line.startswith("ready "):
                self._ready = json.loads(line.removeprefix("ready "))
                self._spoken.set()
            else:
                self._on_line(line)
        self._spoken.set()

    async def _read_tail(self) -> None:
        await self._child.collect_tail()
        self._tail_read.set()


def explain(status: int, tail: tuple[str, ...]) -> str:
    """One line for people: the exit and the last lines of standard error that say something."""
    if any("libgomp" in line for line in tail):
        return OPENMP_MISSING
    lines = [STAMP.sub("", line).strip() for line in tail]
    telling = [line for line in lines if line and not AFTERMATH.search(line)]
    return ": ".join([describe_exit(status), " | ".join(telling[-REASON_LINES:])]).removesuffix(": ")


def loaded_share(line: str) -> float | None:
    """Of `loading {"fraction": 0.4}`, as `parent.py` says it; None for another line."""
    word, _, fields = line.partition(" ")
    return float(json.loads(fields)["fraction"]) if word == "loading" else None
