"""What is remembered of files on disk: their SHA-256, and what they looked like when it was last seen true.

One small JSON file a model file, in the store's notes. They may be lost, old or written by another version:
then a checksum is computed again, nothing worse. They are no protection against somebody who can write there.
"""

import hashlib
import json
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Self, cast

_SHA256 = re.compile(r"[0-9a-f]{64}")
RECORD_BYTES_MAX = 65_536
"""A record has about 300."""


@dataclass(frozen=True, slots=True)
class Identity:
    """What changes when a file is written to or replaced, without reading it."""

    bytes: int
    mtime_ns: int
    inode: int

    @classmethod
    def of(cls, path: Path) -> Self:
        status = path.stat()
        return cls(status.st_size, status.st_mtime_ns, status.st_ino)


@dataclass(frozen=True, slots=True)
class Record:
    sha256: str
    identity: Identity
    """Of the file whose bytes had this SHA-256."""
    origin: str
    """For people: the URL or requirement it came from."""


class Records:
    def __init__(self, notes: Path, store: Path) -> None:
        self._folder = notes / "files"
        self._store = store

    def place(self, path: Path) -> Path:
        """Where the record of `path` is. The store can be moved: paths in it are taken relative to it."""
        absolute = Path(os.path.abspath(path))
        name = absolute.relative_to(self._store) if absolute.is_relative_to(self._store) else absolute
        return self._folder / f"{hashlib.sha256(os.fsencode(name)).hexdigest()[:32]}.json"

    def read(self, path: Path) -> Record | None:
        """None where there is none, or none that can be understood."""
        try:
            with self.place(path).open("rb") as file:
                fields = cast("object", json.loads(file.read(RECORD_BYTES_MAX)))
        except (OSError, ValueError):
            return None
        return _decode(cast("dict[str, object]", fields)) if isinstance(fields, dict) else None

    def write(self, path: Path, record: Record) -> None:
        """A store that cannot be written to remembers nothing and pays with a hash at the next start."""
        place = self.place(path)
        fields = {
            "file": str(path),
            "sha256": record.sha256,
            "bytes": record.identity.bytes,
            "mtime_ns": record.identity.mtime_ns,
            "inode": record.identity.inode,
            "origin": record.origin,
        }
        try:
            place.parent.mkdir(parents=True, exist_ok=True)
            replace_text(place, json.dumps(fields))
        except OSError:
            return

    def forget(self, path: Path) -> None:
        self.place(path).unlink(missing_ok=True)


def replace_text(path: Path, text: str) -> None:
    """Writes all of it or nothing: who is killed here leaves the old file. Raises OSError."""
    unfinished = path.with_name(f"{path.name}.{os.getpid()}.new")
    try:
        unfinished.write_text(text, encoding="utf-8")
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)


def _decode(fields: dict[str, object]) -> Record | None:
    sha256, origin = fields.get("sha256"), fields.get("origin")
    numbers = [fields.get(key) for key in ("bytes", "mtime_ns", "inode")]
    if not isinstance(sha256, str) or not _SHA256.fullmatch(sha256) or not isinstance(origin, str):
        return None
    whole = [number for number in numbers if isinstance(number, int)]
    return Record(sha256, Identity(*whole), origin) if len(whole) == len(numbers) else None
