"""Byte ranges of a model's files, wherever these lie. Here: local files, and headers over any source.

Counterparts: `hub_ranges.py` reads at a hub, `splits/peer_ranges.py` from other nodes. What the bytes mean is
known to whoever asks.
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from mesh_llm.core.errors import DownloadFailed, ModelDamaged
from mesh_llm.core.quantities import MIB
from mesh_llm.models.gguf.contents import Header
from mesh_llm.models.gguf.cursor import WINDOW_BYTES
from mesh_llm.models.gguf.header import read_header
from mesh_llm.models.threads import run_to_end

READ_BYTES_MAX = 64 * MIB
"""Asked for at once: whoever answers may hold all of it in memory."""

PREFIX_BYTES_MAX = 64 * MIB
"""Of a remote file, to find its header in. The largest headers known are about 20 MiB."""


class RangeSource(Protocol):
    """What a stage file is made from."""

    async def read(self, part: int, offset: int, length: int) -> bytes:
        """Exactly these bytes, READ_BYTES_MAX at most. Raises MeshError where they cannot be had, ValueError
        beyond the file."""
        ...


@dataclass(frozen=True, slots=True)
class SourcePart:
    """One of a model's files, as its owner says it."""

    name: str
    """For messages."""
    size: int
    """Bytes."""


class FileRanges:
    """Local files, the model's parts in order."""

    def __init__(self, files: Sequence[Path]) -> None:
        self._files = tuple(files)

    def __repr__(self) -> str:
        return f"<FileRanges {', '.join(file.name for file in self._files)}>"

    async def read(self, part: int, offset: int, length: int) -> bytes:
        """Raises ModelDamaged where the file cannot be read, or has become shorter."""
        return await run_to_end(_read_file, self._files[part], offset, length)


def _read_file(path: Path, offset: int, length: int) -> bytes:
    if offset < 0 or not 0 < length <= READ_BYTES_MAX:
        raise ValueError(f"{length} bytes from {offset}: 1 to {READ_BYTES_MAX} can be read at once")
    try:
        with path.open("rb", buffering=0) as file:
            size = os.fstat(file.fileno()).st_size
            if offset + length > size:
                raise ValueError(f"bytes {offset} to {offset + length} of {path}, which has {size}")
            file.seek(offset)
            return _read_full(file.read, length, path)
    except OSError as error:
        raise ModelDamaged(
            f"{path} cannot be read ({error.strerror}): check the disk, then fetch the model again."
        ) from error


async def read_remote_headers(source: RangeSource, parts: Sequence[SourcePart]) -> list[Header]:
    """Of all parts in order: the beginning of each file, twice as much as its header at most, or 1 MiB.

    Raises ModelDamaged, and what the source raises.
    """
    return [await _read_remote_header(source, number, part) for number, part in enumerate(parts)]


async def _read_remote_header(source: RangeSource, number: int, part: SourcePart) -> Header:
    beginning = bytearray()
    wanted = WINDOW_BYTES + 64  # the cursor reads a window behind the first few bytes
    while True:
        wanted = min(wanted, part.size)
        if wanted > PREFIX_BYTES_MAX:
            raise ModelDamaged(
                f"{part.name} has a header of more than {PREFIX_BYTES_MAX // MIB} MiB, which no model has:"
                " fetch it whole, or another conversion of the model."
            )
        if wanted > len(beginning):
            beginning += await read_exactly(source, number, len(beginning), wanted - len(beginning))
        try:
            return await run_to_end(read_header, _Beginning(part, beginning))
        except _TooShort as short:
            wanted = max(short.wanted, 2 * len(beginning))


async def read_exactly(source: RangeSource, part: int, offset: int, length: int) -> bytes:
    """As `source.read`; raises DownloadFailed too, where it gives another number of bytes."""
    data = await source.read(part, offset, length)
    if len(data) != length:
        raise DownloadFailed(
            f"{source} gave {len(data)} bytes where {length} were asked for: try again, or fetch the model "
            "with `mesh-llm download`."
        )
    return data


class _TooShort(Exception):
    def __init__(self, wanted: int) -> None:
        super().__init__(wanted)
        self.wanted = wanted


class _Beginning:
    """A `ByteSource` of which only the beginning is here."""

    def __init__(self, part: SourcePart, data: bytearray) -> None:
        self.name = part.name
        self.size = part.size
        self._data = data

    def read(self, offset: int, length: int) -> bytes:
        end = min(offset + length, self.size)
        if end > len(self._data):
            raise _TooShort(end)
        return bytes(self._data[offset:end])


class _Reader(Protocol):
    def __call__(self, size: int, /) -> bytes | None: ...


def _read_full(read: _Reader, length: int, path: Path) -> bytes:
    """An unbuffered file may give less at a time."""
    parts: list[bytes] = []
    missing = length
    while missing:
        data = read(missing)
        if not data:
            raise ModelDamaged(f"{path} became shorter while it was read: fetch the model again.")
        parts.append(data)
        missing -= len(data)
    return parts[0] if len(parts) == 1 else b"".join(parts)
