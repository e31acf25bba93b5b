"""How much memory models may use on a machine, and where: the one place with these shares."""

from collections.abc import Collection
from dataclasses import replace

from mesh_llm.core.errors import RequestRefused
from mesh_llm.core.machine import Device, Machine

MEMORY_SHARE = 0.75
"""Of main memory, where models run on the CPU: the rest is the system's and other programs'.
Apple's own limit for the GPU's share of unified memory is about the same."""

DEVICE_SHARE = 0.95
"""Of what a GPU has free: its driver and the engine's context take some hundred MiB."""


def memory_for_models(machine: Machine, bytes_max: int | None) -> int:
    """Bytes for all models together: of the GPUs where there are any, else of main memory.

    What other programs hold now is not counted. `bytes_max` is the user's own limit (`--max-vram`).
    """
    if machine.devices:
        capacity = int(sum(device.memory_bytes_free for device in machine.devices) * DEVICE_SHARE)
    else:
        capacity = min(int(machine.memory_bytes * MEMORY_SHARE), machine.memory_bytes_available)
    return capacity if bytes_max is None else min(capacity, bytes_max)


def with_devices(machine: Machine, names: Collection[str]) -> Machine:
    """The machine as if it had only these devices; `CPU` names none, no names mean all.

    Raises RequestRefused for a name that is not there.
    """
    if not names:
        return machine
    wanted = {name.upper() for name in names}
    known = {device.name.upper() for device in machine.devices}
    for name in sorted(wanted - known - {"CPU"}):
        there = ", ".join(["CPU", *(device.name for device in machine.devices)])
        raise RequestRefused(f"there is no device {name} here; --device takes {there} (mesh-llm gpus)")
    return replace(machine, devices=tuple(d for d in machine.devices if d.name.upper() in wanted))


def shares(all_devices: Collection[Device], chosen: Collection[Device]) -> tuple[float, ...]:
    """Per device of the engine, in its order, the share of a model: by free memory, 0 for one not chosen.

    Empty where all are chosen: the engine then places layers itself, with the same rule.
    """
    if len(chosen) == len(all_devices):
        return ()
    total = sum(device.memory_bytes_free for device in chosen) or 1
    return tuple(device.memory_bytes_free / total if device in chosen else 0.0 for device in all_devices)
