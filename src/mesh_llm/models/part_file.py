"""A download that is not finished: `X.gguf.part`, and beside it a note of what it is a part of.

Counterpart: `transfer.py`, which fills it. Bytes are only ever appended, and the note is written before the
first of them, so whatever kills the process, what lies there is the beginning of the file that it names.
Without a note, or with the note of other bytes, it is worth nothing and is begun anew.
"""

import hashlib
import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import BinaryIO, cast

from mesh_llm.models.disk import cannot_write, settle
from mesh_llm.models.hashing import Digest, sha256_of
from mesh_llm.models.records import RECORD_BYTES_MAX, replace_text
from mesh_llm.models.remote_file import RemoteFile

SUFFIX = ".part"


class PartFile:
    """Open between `resume` and `close`; `bytes` long, with the digest of what it holds."""

    def __init__(self, target: Path) -> None:
        self.target = target
        self.path = part_path(target)
        self.bytes = 0
        self._note = self.path.with_name(self.path.name + ".json")
        self._digest: Digest = hashlib.sha256()
        self._file: BinaryIO | None = None

    async def resume(self, remote: RemoteFile, advance: Callable[[int], None]) -> None:
        """Opens what is there if it began as `remote`, otherwise begins anew. Raises DiskFull."""
        try:
            if self._usable(remote):
                self._digest = await sha256_of(self.path, advance)
                self._file = self.path.open("r+b", buffering=0)
                self.bytes = self._file.seek(0, 2)
            else:
                self.restart(remote)
        except OSError as error:
            raise cannot_write(self.path, error) from error

    def restart(self, remote: RemoteFile) -> None:
        """Forgets all bytes and notes what the next ones belong to. Raises DiskFull."""
        self.close()
        try:
            self.path.unlink(missing_ok=True)
            replace_text(self._note, json.dumps(asdict(remote)))
            self._file = self.path.open("wb", buffering=0)
        except OSError as error:
            raise cannot_write(self.path, error) from error
        self._digest, self.bytes = hashlib.sha256(), 0

    def append(self, data: bytes | bytearray) -> None:
        """Raises DiskFull; what fitted stays."""
        assert self._file is not None
        view = memoryview(data)
        try:
            while view:
                written = self._file.write(view)
                self._digest.update(view[:written])
                self.bytes += written
                view = view[written:]
        except OSError as error:
            raise cannot_write(self.path, error) from error

    def sha256(self) -> str:
        return self._digest.hexdigest()

    def finish(self) -> None:
        """The file gets its name. Raises DiskFull."""
        self.close()
        try:
            settle(self.path, self.target)
            self._note.unlink(missing_ok=True)
        except OSError as error:
            raise cannot_write(self.target, error) from error

    def close(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None

    def _usable(self, remote: RemoteFile) -> bool:
        if not self.path.is_file():
            return False
        noted = _read_note(self._note)
        whole = remote.bytes
        return (
            noted is not None
            and remote.same_bytes(noted)
            and (whole is None or self.path.stat().st_size <= whole)
        )


def part_path(target: Path) -> Path:
    return target.with_name(target.name + SUFFIX)


def bytes_here(target: Path) -> int:
    """What has arrived of `target`, finished or not. For estimates: it may turn out to be of other bytes."""
    for path in (target, part_path(target)):
        try:
            return path.stat().st_size
        except FileNotFoundError:
            continue
    return 0


def _read_note(path: Path) -> RemoteFile | None:
    try:
        with path.open("rb") as file:
            fields = cast("object", json.loads(file.read(RECORD_BYTES_MAX)))
    except (OSError, ValueError):
        return None
    if not isinstance(fields, dict):
        return None
    noted = cast("dict[str, object]", fields)
    size = noted.get("bytes")
    texts = [noted.get(key) for key in ("url", "sha256", "etag", "last_modified")]
    url, sha256, etag, last_modified = (text if isinstance(text, str) else None for text in texts)
    return RemoteFile(url or "", size if isinstance(size, int) else None, sha256, etag, last_modified)
