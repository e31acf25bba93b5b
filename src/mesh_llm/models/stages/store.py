"""Stage files kept on this disk: by the model's identity and the layers, each locked while it is in use.

A file in use holds a shared lock of the system on itself, let go of when its process dies, however it dies;
who prunes asks for the whole lock and leaves what it does not get. Files are made and pruned under the lock
that downloads use (`models/locks.py`), so nothing is pruned between being made and being used.
"""

import asyncio
import fcntl
import os
import re
from collections.abc import AsyncGenerator, Generator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Literal

from mesh_llm.core.errors import RequestRefused
from mesh_llm.core.progress import Progress, Report, ignore
from mesh_llm.core.stages import LayerRange
from mesh_llm.models.disk import FreeBytes, cannot_write, free_bytes
from mesh_llm.models.gguf.contents import Header
from mesh_llm.models.locks import alone, alone_at_once
from mesh_llm.models.part_file import SUFFIX as PART
from mesh_llm.models.patience import Sleep
from mesh_llm.models.places import ModelPlaces
from mesh_llm.models.stages.composition import FileLayout
from mesh_llm.models.stages.layout import stage_layout
from mesh_llm.models.stages.ranges import RangeSource
from mesh_llm.models.stages.writing import note_path, write_stage
from mesh_llm.models.threads import run_to_end

FOLDER = "stages"
"""Below the store's notes, where no model is looked for."""

_IDENTITY = re.compile(r"[0-9a-f]{8,128}")

Kind = Literal["stage", "part"]
"""A stage file; the beginning of a stage file or a download that never became whole."""


@dataclass(frozen=True, slots=True)
class Leftover:
    """A file that can be made or fetched again."""

    path: Path
    kind: Kind
    bytes: int
    """That it takes on the disk: a beginning may have holes."""
    in_use: bool


class StageStore:
    def __init__(
        self, places: ModelPlaces, sleep: Sleep = asyncio.sleep, free: FreeBytes = free_bytes
    ) -> None:
        self._places = places
        self._sleep = sleep
        self._free = free

    def __repr__(self) -> str:
        return f"<StageStore {self.folder}>"

    @property
    def folder(self) -> Path:
        return self._places.notes / FOLDER

    def place(self, identity: str, layers: LayerRange, *, is_head: bool) -> Path:
        """Raises RequestRefused where `identity`, which others may have said, is none."""
        if not _IDENTITY.fullmatch(identity):
            raise RequestRefused(f"{identity[:20]!r} is no identity of a model: 8 to 128 hex digits are.")
        return self.folder / identity / f"{layers.first}-{layers.end}{'-head' if is_head else ''}.gguf"

    @asynccontextmanager
    async def stage(
        self,
        identity: str,
        layers: LayerRange,
        *,
        is_head: bool,
        parts: Sequence[Header],
        source: RangeSource,
        report: Report = ignore,
    ) -> AsyncGenerator[Path]:
        """The file of a stage, written first where it is not here; nobody prunes it meanwhile.

        `identity`: 8 to 128 hex digits that stand for the model's files. Raises RequestRefused, ModelDamaged,
        DiskFull, and what the source raises.
        """
        target = self.place(identity, layers, is_head=is_head)
        layout = await run_to_end(stage_layout, parts, layers, is_head=is_head)

        def waiting() -> None:
            report(Progress("download", target.name, 0, layout.bytes))

        async with alone(self._places, target, waiting, self._sleep):
            if await run_to_end(_is_here, target, layout):
                report(Progress("download", target.name, layout.bytes, layout.bytes))
            else:
                await write_stage(layout, source, target, identity, report, self._free)
            file = await run_to_end(_opened, target)
        with file:
            yield target

    def leftovers(self) -> list[Leftover]:
        """Stage files, and beginnings of them and of downloads, in order of their paths. Raises OSError."""
        found: list[Leftover] = []
        for path in sorted(_files_below(self._places.store)):
            kind: Kind | None = "part" if path.name.endswith(PART) else None
            if kind is None and path.suffix == ".gguf" and path.is_relative_to(self.folder):
                kind = "stage"
            if kind is not None:
                with self._unused(path) as is_free:
                    found.append(Leftover(path, kind, _bytes_on_disk(path), not is_free))
        return found

    def prune(self, leftovers: Sequence[Leftover]) -> list[Leftover]:
        """Deletes those that nobody uses; gives what is gone. Raises DiskFull where it may not."""
        gone: list[Leftover] = []
        for each in leftovers:
            with self._unused(each.path) as is_free:
                if is_free:
                    self._delete(each.path)
                    gone.append(each)
        return gone

    def _delete(self, path: Path) -> None:
        try:
            path.unlink(missing_ok=True)
            note_path(path).unlink(missing_ok=True)
            if path.is_relative_to(self.folder) and not any(path.parent.iterdir()):
                path.parent.rmdir()
        except OSError as error:
            raise cannot_write(path, error) from error

    @contextmanager
    def _unused(self, path: Path) -> Generator[bool]:
        """Whether nobody makes or uses it, which stays so inside."""
        target = path.with_name(path.name.removesuffix(PART))
        with alone_at_once(self._places, target) as is_mine:
            if not is_mine:
                yield False
                return
            try:
                file = path.open("rb")
            except FileNotFoundError:
                yield False
                return
            with file:
                yield _is_locked(file, fcntl.LOCK_EX)


def _opened(path: Path) -> BinaryIO:
    """Open, and shared for as long as it is. Raises OSError."""
    file = path.open("rb")
    if not _is_locked(file, fcntl.LOCK_SH):
        file.close()
        raise AssertionError(f"{path} is locked by somebody who did not ask for the lock of its place")
    return file


def _is_locked(file: BinaryIO, how: int) -> bool:
    try:
        fcntl.flock(file.fileno(), how | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _is_here(target: Path, layout: FileLayout) -> bool:
    """Whole, and as this version would write it."""
    try:
        with target.open("rb") as file:
            if os.fstat(file.fileno()).st_size != layout.bytes:
                return False
            for literal in layout.literals:
                file.seek(literal.target)
                if file.read(len(literal.data)) != literal.data:
                    return False
    except OSError:
        return False
    return True


def _bytes_on_disk(path: Path) -> int:
    try:
        status = path.stat()
    except FileNotFoundError:
        return 0
    return min(status.st_size, 512 * status.st_blocks)


def _files_below(root: Path) -> Iterator[Path]:
    for folder, _, names in os.walk(root):
        for name in names:
            path = Path(folder, name)
            if path.is_file() and not path.is_symlink():
                yield path
