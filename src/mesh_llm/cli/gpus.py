"""`mesh-llm gpus`: what this machine has to compute on, and what of it the engine can use."""

import json
import os
from argparse import Namespace
from dataclasses import asdict
from importlib.metadata import version

from mesh_llm.core.machine import Machine
from mesh_llm.core.quantities import human_bytes
from mesh_llm.engine.devices import find_devices
from mesh_llm.planner.capacity import memory_for_models
from mesh_llm.runtime import hardware

INDEXES = {
    "NVIDIA": "https://xorbitsai.github.io/xllamacpp/whl/cu128",
    "AMD": "https://xorbitsai.github.io/xllamacpp/whl/rocm-7.2.4",
}
"""Where the engine's makers publish builds for cards (its README). PyPI has the CPU's and Apple's."""


ENGINE = f"xllamacpp=={version('xllamacpp')}"


async def run(arguments: Namespace) -> int:
    machine = hardware.measure(await find_devices(os.environ))
    if arguments.json:
        print(json.dumps(asdict(machine) | {"memory_bytes_for_models": memory_for_models(machine, None)}))
    else:
        _show(machine)
    return 0


def _show(machine: Machine) -> None:
    for device in machine.devices:
        free = human_bytes(device.memory_bytes_free)
        print(f"{device.name}  {device.description}: {human_bytes(device.memory_bytes)}, {free} free")
    if not machine.devices:
        print("no GPU that the engine can use: models run on the CPU")
        _show_cure(hardware.cards_present())
    available = human_bytes(machine.memory_bytes_available)
    print(f"CPU  {machine.cores} cores, {human_bytes(machine.memory_bytes)} of memory, {available} available")
    print(f"models may use {human_bytes(memory_for_models(machine, None))}")


def _show_cure(makers: tuple[str, ...]) -> None:
    """A card that lies idle because the installed engine was built without it."""
    for maker in makers:
        if maker in INDEXES:
            print(f"There is a card of {maker} here. The engine that uses it:")
            print(f"  pip install --force-reinstall --no-deps --index-url {INDEXES[maker]} {ENGINE}")
