"""Writes a composed file from its layout and a source of ranges: a few MiB at a time, resumed after a kill.

Theory of operation. The `.part` has its full length from the start; copies are fetched in order of their
places, some ahead of the one that is written, so that everything below one mark is there. The mark is noted
beside it, after the bytes are on disk, with a digest of the layout and the model's identity: a `.part` of
anything else is begun anew. Whatever is above the mark when a process dies is fetched again.
"""

import asyncio
import hashlib
import json
import os
from collections import deque
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import BinaryIO, cast

from mesh_llm.core.progress import Progress, Report, ignore
from mesh_llm.core.quantities import MIB
from mesh_llm.models.disk import FreeBytes, cannot_write, check_space, free_bytes, make_folder, settle
from mesh_llm.models.part_file import part_path
from mesh_llm.models.records import RECORD_BYTES_MAX, replace_text
from mesh_llm.models.stages.composition import FileLayout
from mesh_llm.models.stages.ranges import RangeSource, read_exactly
from mesh_llm.models.stages.readings import Reading, readings
from mesh_llm.models.threads import run_to_end
from mesh_llm.runtime.tasks import first_fault

PIECES_AHEAD = 4
"""Asked for before the oldest has come: hides the round trips, and keeps 32 MiB in memory, twice while they
are put together (`readings.PIECE_BYTES` each)."""

MARK_BYTES = 64 * MIB
"""Written between two notes of how far it is, one of which may be on its way to the disk: a kill costs twice
as much at most, besides what is on its way here."""


async def write_file(
    layout: FileLayout,
    source: RangeSource,
    target: Path,
    identity: str,
    report: Report = ignore,
    free: FreeBytes = free_bytes,
) -> None:
    """Until `target` is whole and on disk. `identity`: of the model's files, so that a `.part` of others is
    not gone on with. Raises DiskFull, and what the source raises; what has arrived stays."""
    part = part_path(target)
    note = note_path(part)
    try:
        mark = await run_to_end(_begin, layout, part, note, identity, free)
        with part.open("r+b", buffering=0) as file:
            await _Filling(layout, file, note, layout_digest(layout, identity), report, target.name).run(
                source, mark
            )
        await run_to_end(settle, part, target)
        note.unlink(missing_ok=True)
    except OSError as error:
        raise cannot_write(part, error) from error
    report(Progress("download", target.name, layout.bytes, layout.bytes))


def note_path(part: Path) -> Path:
    return part.with_name(part.name + ".json")


def _begin(layout: FileLayout, part: Path, note: Path, identity: str, free: FreeBytes) -> int:
    """The `.part` in its full length; gives what is there of it already. Raises OSError, DiskFull."""
    make_folder(part.parent)
    mark = _noted(note, layout_digest(layout, identity)) if part.is_file() else 0
    if not mark or part.stat().st_size != layout.bytes:
        mark = 0
        part.unlink(missing_ok=True)
        note.unlink(missing_ok=True)
    check_space(part.parent, layout.bytes - mark, part.name, free)
    if not mark:
        with part.open("wb") as file:
            file.truncate(layout.bytes)
    return mark


@dataclass(slots=True)
class _Filling:
    """One go at a `.part`."""

    layout: FileLayout
    file: BinaryIO
    note: Path
    digest: str
    report: Report
    subject: str
    _marked: int = 0
    _marking: asyncio.Task[None] | None = None
    """The disk catches up with one mark while bytes are written for the next."""

    async def run(self, source: RangeSource, mark: int) -> None:
        self._marked = mark
        for literal in self.layout.literals:
            await run_to_end(_write_at, self.file, literal.target, literal.data)
        done = mark
        try:
            with first_fault():
                async with asyncio.TaskGroup() as tasks:
                    start = partial(_started, tasks, source)
                    waiting: deque[tuple[Reading, asyncio.Task[bytes]]] = deque()
                    for reading in readings(self.layout, mark):
                        waiting.append((reading, start(reading)))
                        if len(waiting) == PIECES_AHEAD:
                            done = await self._land(*waiting.popleft())
                            await self._mark_beside(tasks, done)
                    while waiting:
                        done = await self._land(*waiting.popleft())
        finally:
            # Also when it broke off: bytes that came are bytes not to fetch again.
            await run_to_end(self._keep_mark, done)

    async def _land(self, reading: Reading, coming: asyncio.Task[bytes]) -> int:
        """Writes what came; all bytes below what it gives are there."""
        await run_to_end(_scatter, self.file, reading, await coming)
        done = reading.end
        self.report(Progress("download", self.subject, done, self.layout.bytes))
        return done

    async def _mark_beside(self, tasks: asyncio.TaskGroup, done: int) -> None:
        """Begins to keep a mark where one is due; waits where the disk is two behind."""
        if self._marking is not None and done - self._marked >= 2 * MARK_BYTES:
            await self._marking
        is_marking = self._marking is not None and not self._marking.done()
        if done - self._marked >= MARK_BYTES and not is_marking:
            self._marking = tasks.create_task(run_to_end(self._keep_mark, done), name=f"mark {done}")

    def _keep_mark(self, done: int) -> None:
        if done <= self._marked:
            return
        os.fsync(self.file.fileno())
        replace_text(self.note, json.dumps({"digest": self.digest, "done": done}))
        self._marked = done


def _started(tasks: asyncio.TaskGroup, source: RangeSource, reading: Reading) -> asyncio.Task[bytes]:
    coming = read_exactly(source, reading.part, reading.offset, reading.length)
    return tasks.create_task(coming, name=f"bytes {reading.offset} of part {reading.part}")


def _scatter(file: BinaryIO, reading: Reading, data: bytes) -> None:
    view = memoryview(data)
    for copy in reading.copies:
        start = copy.offset - reading.offset
        _write_at(file, copy.target, view[start : start + copy.length])


def _write_at(file: BinaryIO, offset: int, data: bytes | memoryview) -> None:
    view = memoryview(data)
    while view:
        written = os.pwrite(file.fileno(), view, offset)
        offset += written
        view = view[written:]


def layout_digest(layout: FileLayout, identity: str) -> str:
    """Of a file's own bytes, and from where in the model's files with this `identity` all others come."""
    digest = hashlib.sha256(f"{identity} {layout.bytes} {layout.copies}".encode())
    for literal in layout.literals:
        digest.update(f"{literal.target} {len(literal.data)}".encode() + literal.data)
    return digest.hexdigest()


def _noted(note: Path, digest: str) -> int:
    """How far the `.part` is; 0 where it is of something else, or nobody can tell."""
    try:
        with note.open("rb") as file:
            fields = cast("object", json.loads(file.read(RECORD_BYTES_MAX)))
    except (OSError, ValueError):
        return 0
    if not isinstance(fields, dict):
        return 0
    noted = cast("dict[str, object]", fields)
    done = noted.get("done")
    return done if noted.get("digest") == digest and isinstance(done, int) and done > 0 else 0
