"""The accelerators that the installed engine can compute on. `python -m mesh_llm.engine.devices` prints them.

Asked in a child process: looking at a GPU opens a context on it, which costs memory and time, and a broken
driver takes its process down.
"""

import asyncio
import json
import os
import sys
from collections.abc import Mapping
from typing import Any

from mesh_llm.core.errors import EngineFailed
from mesh_llm.core.machine import Device
from mesh_llm.engine.child import explain
from mesh_llm.runtime.children import Child
from mesh_llm.runtime.tasks import beside

LOOK_S_MAX = 30.0
"""A first CUDA context takes seconds; a driver that hangs must not hang the node."""


async def find_devices(environment: Mapping[str, str] = os.environ) -> tuple[Device, ...]:
    """GPUs in the engine's order; empty where it computes on the CPU alone. Raises EngineFailed."""
    argv = [sys.executable, "-P", "-m", "mesh_llm.engine.devices"]
    child = await Child.spawn("engine devices", argv, environment, b"")
    lines: list[str] = []
    try:
        async with asyncio.timeout(LOOK_S_MAX), beside(stderr=child.collect_tail()):
            async for line in child.lines():
                lines.append(line)
            status = await child.wait()
    except TimeoutError:
        raise EngineFailed(f"the engine did not name its devices within {LOOK_S_MAX:.0f} s") from None
    finally:
        await child.stop()
    if status != 0 or not lines:
        raise EngineFailed(f"the engine cannot be loaded: {explain(status, child.tail)}")
    return tuple(Device(**fields) for fields in json.loads(lines[-1]))


def describe(info: Mapping[str, Any]) -> dict[str, Any] | None:
    """One entry of xllamacpp's `get_device_info()` as the fields of a Device; None for what is no GPU."""
    if "GPU" not in str(info["type"]):
        return None
    return {
        "name": info["name"],
        "description": info["description"],
        "memory_bytes": info["memory_total"],
        "memory_bytes_free": info["memory_free"],
    }


def main() -> int:
    import xllamacpp  # here: only this child may load it

    found = [describe(info) for info in xllamacpp.get_device_info()]
    print(json.dumps([fields for fields in found if fields is not None]))  # noqa: T201
    return 0


if __name__ == "__main__":
    sys.exit(main())
