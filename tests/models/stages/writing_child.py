"""Writes a large stage file in a process of its own, which kills itself when it is told to.

Run as `python -m tests.models.stages.writing_child FILE BYTES KILL_AT` (0: never). Prints what it fetched
and the memory that it took for that.
"""

import asyncio
import json
import os
import resource
import signal
import sys
from pathlib import Path

from mesh_llm.core.progress import Progress
from mesh_llm.models.stages.composition import Copy, FileLayout, Literal
from mesh_llm.models.stages.writing import write_file


class Anything:
    """A model of any size that takes no room: each piece says where it lies."""

    def __init__(self) -> None:
        self.first: int | None = None
        self.bytes = 0

    async def read(self, part: int, offset: int, length: int) -> bytes:
        self.first = offset if self.first is None else min(self.first, offset)
        self.bytes += length
        return piece(offset, length)


def piece(offset: int, length: int) -> bytes:
    return offset.to_bytes(8, "little").ljust(length, b"x")


def layout(size: int) -> FileLayout:
    return FileLayout((Literal(0, b"GGUF"),), (Copy(4, 0, 0, size - 4),), size, size)


def main() -> None:
    target, size, kill_at = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
    source, before = Anything(), _peak_bytes()

    def report(progress: Progress) -> None:
        if kill_at and progress.done >= kill_at:
            os.kill(os.getpid(), signal.SIGKILL)

    asyncio.run(write_file(layout(size), source, target, "ab" * 32, report))
    taken = _peak_bytes() - before
    sys.stdout.write(json.dumps({"first": source.first, "bytes": source.bytes, "memory": taken}))


def _peak_bytes() -> int:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else 1024 * peak


if __name__ == "__main__":
    main()
