"""What this machine has: cores and memory that this process may really use.

Accelerators are the engine's to tell: one that it cannot compute on is none.
"""

import os
import sys
from pathlib import Path

import psutil

from mesh_llm.core.machine import Device, Machine

CGROUP = Path("/sys/fs/cgroup")
DEV = Path("/dev")

CARDS = {"nvidiactl": "NVIDIA", "dxg": "NVIDIA", "kfd": "AMD", "dri": "graphics"}
"""Entries of /dev without which no driver on Linux computes: CUDA (and WSL's), ROCm, Vulkan."""


def measure(devices: tuple[Device, ...], cgroup: Path = CGROUP) -> Machine:
    """One look at the machine, limits of a container included."""
    memory = psutil.virtual_memory()
    limit = _cgroup_memory_bytes(cgroup)
    total = min(memory.total, limit) if limit else memory.total
    return Machine(
        cores=_cores(cgroup),
        memory_bytes=total,
        memory_bytes_available=min(memory.available, total),
        devices=devices,
    )


def cards_present(dev: Path = DEV) -> tuple[str, ...]:
    """Makers of the cards that a driver on this machine knows, whether or not the engine can use them.

    Empty on Linux means that no engine could find one. On macOS the GPU is always there.
    """
    if sys.platform == "darwin":
        return ("Apple",)
    return tuple(dict.fromkeys(maker for entry, maker in CARDS.items() if (dev / entry).exists()))


def _cores(cgroup: Path) -> int:
    """Cores to compute on. A second hardware thread of a core adds nothing to matrix products, so physical
    cores count; virtual machines often hide them (None), then logical ones do."""
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    physical = psutil.cpu_count(logical=False) or usable
    quota = _cgroup_cores(cgroup)
    return max(1, min(usable, physical, quota or usable))


def _cgroup_cores(cgroup: Path) -> int | None:
    """The CPU quota of a container, in whole cores; None without one. `cpu.max` is `max 100000` or
    `150000 100000` (cgroup v2)."""
    quota, _, period = _read(cgroup / "cpu.max").partition(" ")
    if not quota.isdigit() or not period.isdigit() or int(period) == 0:
        return None
    return max(1, int(quota) // int(period))


def _cgroup_memory_bytes(cgroup: Path) -> int | None:
    text = _read(cgroup / "memory.max")
    return int(text) if text.isdigit() else None


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii").strip()
    except OSError:  # no cgroup v2 here: no limit
        return ""
