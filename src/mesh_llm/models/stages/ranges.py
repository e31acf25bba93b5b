"""Byte ranges of a model's files, wherever these lie: on this disk, at a hub, with peers."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from mesh_llm.models.gguf.contents import Header


class RangeSource(Protocol):
    async def read(self, part: int, offset: int, length: int) -> bytes:
        """Exactly these bytes. Raises MeshError where they cannot be had, ValueError beyond the file."""
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
        raise NotImplementedError

    async def read(self, part: int, offset: int, length: int) -> bytes:
        raise NotImplementedError


async def read_remote_headers(source: RangeSource, parts: Sequence[SourcePart]) -> list[Header]:
    """Of all parts in order. Raises ModelDamaged, and what the source raises."""
    raise NotImplementedError
