"""The accelerators that the installed engine can compute on. `python -m mesh_llm.engine.devices` prints them.

Asked in a child process: looking at a GPU opens a context on it, which costs memory and time, and a broken
driver takes its process down.
"""

import json
import os
import sys
from collections.abc import Mapping
from typing import Any

from mesh_llm.core.machine import Device
from mesh_llm.engine.asking import ask_child

LOOK_S_MAX = 30.0
"""A first CUDA context takes seconds; a driver that hangs must not hang the node."""


async def find_devices(environment: Mapping[str, str] = os.environ) -> tuple[Device, ...]:
    """GPUs in the engine's order; empty where it computes on the CPU alone. Raises EngineFailed."""
    said = await ask_child("devices", "mesh_llm.engine.devices", [], environment, LOOK_S_MAX)
    return tuple(Device(**fields) for fields in json.loads(said))


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
