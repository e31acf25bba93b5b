"""SHA-256 of files too large to read at once, without holding up anybody else.

The event loop hands one stretch at a time to a thread and looks around in between, so progress is reported
where it is displayed and cancelling works at every stretch.
"""

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO, Protocol

from mesh_llm.models.threads import run_to_end

STRETCH_BYTES = 8 * 1024 * 1024
"""5 to 20 ms of hashing: soon enough to cancel, long enough that changing threads costs nothing."""


class Digest(Protocol):
    """What `hashlib.sha256()` gives."""

    def update(self, data: bytes | bytearray | memoryview, /) -> None: ...
    def hexdigest(self) -> str: ...


async def sha256_of(path: Path, advance: Callable[[int], None]) -> Digest:
    """The digest of all that `path` holds now; `advance` hears of each stretch, in bytes. Raises OSError."""
    digest = hashlib.sha256()
    with path.open("rb", buffering=0) as file:
        while count := await run_to_end(_hash_stretch, file, digest):
            advance(count)
    return digest


def _hash_stretch(file: BinaryIO, digest: Digest) -> int:
    data = file.read(STRETCH_BYTES)
    digest.update(data)
    return len(data)
