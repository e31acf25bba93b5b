"""Files made of a model's bytes, kept on this disk: each locked while it is in use, pruned when it is not.

A file in use holds a shared lock of the system on itself, let go of when its process dies, however it dies;
who prunes asks for the whole lock and leaves what it does not get. Files are made and pruned under the lock
that downloads use (`models/locks.py`), so nothing is pruned between being made and being used. One that is
not as it was made, or would be made otherwise now, is made anew, and people are told why. Counterparts:
`store.py` says which are stages, `experts/cut_store.py` which are cuts of experts, `seals.py` what is whole.
"""

import asyncio
import fcntl
import logging
import os
import re
from collections.abc import AsyncGenerator, Generator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Literal

from mesh_llm.core.errors import RequestRefused
from mesh_llm.core.progress import Progress, Report, ignore
from mesh_llm.models.disk import FreeBytes, cannot_write, free_bytes
from mesh_llm.models.locks import alone, alone_at_once
from mesh_llm.models.part_file import SUFFIX as PART
from mesh_llm.models.patience import Sleep
from mesh_llm.models.places import ModelPlaces
from mesh_llm.models.records import Records
from mesh_llm.models.stages.composition import FileLayout
from mesh_llm.models.stages.ranges import RangeSource
from mesh_llm.models.stages.seals import Seals
from mesh_llm.models.stages.writing import write_file
from mesh_llm.models.threads import run_to_end

_log = logging.getLogger(__name__)

_IDENTITY = re.compile(r"[0-9a-f]{8,128}")

Kind = Literal["stage", "cut", "part"]
"""A stage; a cut of experts; the beginning of either or of a download that never became whole."""

FOLDERS: dict[Literal["stage", "cut"], str] = {"stage": "stages", "cut": "experts"}
"""Below the store's notes, where no model is looked for."""


@dataclass(frozen=True, slots=True)
class Leftover:
    """A file that can be made or fetched again."""

    path: Path
    kind: Kind
    bytes: int
    """That it takes on the disk: a beginning may have holes."""
    in_use: bool


class MadeFiles:
    def __init__(
        self, places: ModelPlaces, sleep: Sleep = asyncio.sleep, free: FreeBytes = free_bytes
    ) -> None:
        self._places = places
        self._sleep = sleep
        self._free = free
        self._seals = Seals(Records(places.notes, places.store))

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self._places.notes}>"

    def folder_of(self, kind: Literal["stage", "cut"], identity: str) -> Path:
        """Where all of this kind of one model lie. `identity`: 8 to 128 hex digits that stand for the model's
        files. Raises RequestRefused where it, which others may have said, is none."""
        if not _IDENTITY.fullmatch(identity):
            raise RequestRefused(f"{identity[:20]!r} is no identity of a model: 8 to 128 hex digits are.")
        return self._places.notes / FOLDERS[kind] / identity

    @asynccontextmanager
    async def file(
        self,
        target: Path,
        layout: FileLayout,
        source: RangeSource,
        identity: str,
        report: Report = ignore,
    ) -> AsyncGenerator[Path]:
        """`target`, written first where it is not here or not whole; nobody prunes it meanwhile.

        Raises DiskFull, ModelDamaged where it is changed while it is read, and what the source raises.
        """

        def waiting() -> None:
            report(Progress("download", target.name, 0, layout.bytes))

        async with alone(self._places, target, waiting, self._sleep):
            broken = await self._seals.why_broken(target, layout, identity)
            if broken is None:
                report(Progress("download", target.name, layout.bytes, layout.bytes))
            else:
                if broken:
                    _log.warning("%s on this disk is made anew: %s", target.name, broken)
                await write_file(layout, source, target, identity, report, self._free)
                await self._seals.seal(target, layout, identity)
            file = await run_to_end(_opened, target)
        with file:
            yield target

    def leftovers(self) -> list[Leftover]:
        """Made files, and beginnings of them and of downloads, in order of their paths. Raises OSError."""
        found: list[Leftover] = []
        for path in sorted(_files_below(self._places.store)):
            kind = self._kind(path)
            if kind is not None:
                with self._unused(path) as is_free:
                    found.append(Leftover(path, kind, _bytes_on_disk(path), not is_free))
        return found

    def _kind(self, path: Path) -> Kind | None:
        if path.name.endswith(PART):
            return "part"
        for kind, folder in FOLDERS.items():
            if path.suffix == ".gguf" and path.is_relative_to(self._places.notes / folder):
                return kind
        return None

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
            self._seals.forget(path)
            is_made = any(path.is_relative_to(self._places.notes / folder) for folder in FOLDERS.values())
            if is_made and not any(path.parent.iterdir()):
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
