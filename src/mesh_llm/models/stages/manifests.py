"""The manifests of files on disk: made once, in a thread, and remembered as long as the file stays as it is.

Kept beside the record of the file's SHA-256 (`records.py`), under the same rule: size, modification time and
inode as they were, or it is made again. They may be lost; then a file is read once more.
"""

import asyncio
import json
from collections import defaultdict
from dataclasses import asdict
from hashlib import sha256
from pathlib import Path
from typing import BinaryIO

from mesh_llm.core.errors import ModelDamaged
from mesh_llm.models.records import Identity, Records, replace_text
from mesh_llm.models.stages.chunks import CHUNKS_MAX, HASH_BYTES, Manifest, chunk_bytes_for
from mesh_llm.models.threads import run_to_end

STRETCH_BYTES = 8 * 1024 * 1024
"""Or one chunk, where that is more: some 5 ms of hashing, then cancelling works and others have a turn."""

HEAD_BYTES_MAX = 1024


class Manifests:
    def __init__(self, records: Records) -> None:
        self._records = records
        self._making: defaultdict[Path, asyncio.Lock] = defaultdict(asyncio.Lock)
        self._done: dict[Path, float] = {}

    def __repr__(self) -> str:
        return f"<Manifests {self._records}>"

    def fraction(self, path: Path) -> float:
        """How much of a file has been read by who makes its manifest now."""
        return self._done.get(path, 0.0)

    async def manifest_of(self, path: Path) -> tuple[Manifest, Identity]:
        """The manifest, and what the file looked like when it had these chunks. Who comes while it is being
        made waits for it. Raises OSError, ModelDamaged."""
        async with self._making[path]:
            identity = Identity.of(path)
            known = await run_to_end(self._read, path, identity)
            if known is not None:
                return known, identity
            try:
                manifest = await self._make(path, identity)
            finally:
                self._done.pop(path, None)
            await run_to_end(self._write, path, identity, manifest)
            return manifest, identity

    def forget(self, path: Path) -> None:
        """A file that is gone. Raises OSError."""
        self._place(path).unlink(missing_ok=True)

    async def _make(self, path: Path, identity: Identity) -> Manifest:
        try:
            chunk_bytes = chunk_bytes_for(identity.bytes)
        except ValueError as error:
            raise ModelDamaged(f"{path} cannot be cut into chunks: {error}. Fetch it again.") from None
        hashes = bytearray()
        with path.open("rb", buffering=0) as file:
            while stretch := await run_to_end(_hash_stretch, file, chunk_bytes):
                hashes += stretch
                self._done[path] = min(1.0, len(hashes) / HASH_BYTES * chunk_bytes / identity.bytes)
        if Identity.of(path) != identity:
            raise ModelDamaged(f"{path} was changed while it was read. Try again when it is at rest.")
        return Manifest(identity.bytes, bytes(hashes))

    def _place(self, path: Path) -> Path:
        return self._records.place(path).with_suffix(".chunks")

    def _read(self, path: Path, identity: Identity) -> Manifest | None:
        """None where there is none, or none for the file as it is now."""
        try:
            with self._place(path).open("rb") as file:
                head = file.readline(HEAD_BYTES_MAX).decode()
                hashes = bytes.fromhex(file.read(2 * CHUNKS_MAX * HASH_BYTES + 1).decode())
            return Manifest(identity.bytes, hashes) if head == _head(identity) else None
        except (OSError, ValueError):
            return None

    def _write(self, path: Path, identity: Identity, manifest: Manifest) -> None:
        """A store that cannot be written to remembers nothing, and pays with a reading later."""
        place = self._place(path)
        try:
            place.parent.mkdir(parents=True, exist_ok=True)
            replace_text(place, _head(identity) + manifest.hashes.hex())
        except OSError:
            return


def _head(identity: Identity) -> str:
    return json.dumps({"chunks": 1} | asdict(identity)) + "\n"


def _hash_stretch(file: BinaryIO, chunk_bytes: int) -> bytes:
    """The hashes of the next chunks of the file; none at its end."""
    data = memoryview(_read_full(file, max(STRETCH_BYTES, chunk_bytes)))
    return b"".join(
        sha256(data[start : start + chunk_bytes]).digest() for start in range(0, len(data), chunk_bytes)
    )


def _read_full(file: BinaryIO, size: int) -> bytes:
    """All `size` bytes, or what is left: an unbuffered file may give less at a time."""
    parts: list[bytes] = []
    while size and (part := file.read(size)):
        parts.append(part)
        size -= len(part)
    return b"".join(parts)
