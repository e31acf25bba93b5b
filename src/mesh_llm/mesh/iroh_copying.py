"""How iroh 1.2.0's Python half copies bytes, mended: as it is shipped, one at a time.

`iroh_transport.py` hands it that half, as a dictionary of its names: nothing here imports iroh.
"""

import ctypes
import struct
from collections.abc import Mapping
from typing import Any

from mesh_llm.core.errors import RequestRefused
from mesh_llm.runtime.clock import Clock

COPY_TEST_BYTES = 64 * 1024

COPY_TEST_SECONDS_MAX = 0.005
"""Mended 10 us, as shipped 18,000 us; the best of five tries counts, however busy the machine."""

WRONG_IROH = "mesh-llm needs iroh 1.2.0, whose copying it mends; install that one: pip install iroh==1.2.0"


def mend_copying(ffi: Mapping[str, Any], clock: Clock) -> None:
    """And prove it. `ffi`: the names of `iroh_ffi`. Raises RequestRefused where another iroh is installed."""
    try:
        _mend(ffi)
        seconds = min(_seconds_to_copy(COPY_TEST_BYTES, ffi, clock) for _ in range(5))
    except (KeyError, AttributeError, TypeError, ValueError) as error:
        raise RequestRefused(f"{WRONG_IROH} ({error!r})") from error
    if seconds > COPY_TEST_SECONDS_MAX:
        raise RequestRefused(f"{WRONG_IROH} (it takes {seconds:.3f} s to copy {COPY_TEST_BYTES} bytes)")


def _mend(ffi: Mapping[str, Any]) -> None:
    """Replace the byte-by-byte loops of uniffi 0.31 (5 MB/s, the loop stands still) by one copy each."""
    builder, buffer = ffi["_UniffiRustBufferBuilder"], ffi["_UniffiRustBuffer"]
    for name in ("write", "_pack_into"):
        getattr(builder, name)

    def write(self: Any, value: bytes) -> None:
        size, room = len(value), self.rbuf
        if room.len + size > room.capacity:
            room = self.rbuf = buffer.reserve(room, size)
        if size:
            ctypes.memmove(ctypes.addressof(room.data.contents) + room.len, bytes(value), size)
            room.len += size

    def pack_into(self: Any, _size: int, form: str, value: object) -> None:
        write(self, struct.pack(form, value))

    builder.write, builder._pack_into = write, pack_into


def _seconds_to_copy(size: int, ffi: Mapping[str, Any], clock: Clock) -> float:
    """Of one trip through iroh's Python half, whose outcome is checked."""
    sample = bytes(range(256)) * (size // 256)
    began = clock.monotonic()
    lowered = ffi["_UniffiFfiConverterBytes"].lower(sample)
    seconds = clock.monotonic() - began
    copied = ctypes.string_at(lowered.data, lowered.len)
    lowered.free()
    if copied != len(sample).to_bytes(4, "big") + sample:
        raise ValueError("it changes what it copies")
    return seconds
