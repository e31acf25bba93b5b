"""What a machine has, as measured once at start-up."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Device:
    """One accelerator that the installed engine can compute on."""

    name: str
    """The engine's own name: `CUDA0`, `MTL0`, `Vulkan0`."""
    description: str
    memory_bytes: int
    memory_bytes_free: int


@dataclass(frozen=True, slots=True)
class Machine:
    cores: int
    """Physical cores this process may use; what the engine gets as threads."""
    memory_bytes: int
    memory_bytes_available: int
    devices: tuple[Device, ...]
