"""A model that may be split, as its leader knows it: its headers, and where its bytes are."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from mesh_llm.core.stages import Cuttable
from mesh_llm.models.gguf.header import Header
from mesh_llm.models.stages.ranges import RangeSource
from mesh_llm.splits.messages import Part


@dataclass(frozen=True, slots=True)
class SplitSource:
    name: str
    """The `model` of requests and answers."""
    aliases: tuple[str, ...]
    bytes: int
    """Of all files."""
    identity: str
    """Hex digits that stand for the content of the files: two nodes that hold the same say the same."""
    headers: Sequence[Header]
    """Of its files, in order."""
    cuttable: Cuttable
    parts: tuple[Part, ...]
    """The files as other nodes are told of them."""
    ranges: RangeSource
    """Where this node reads them."""
    files: tuple[Path, ...] = ()
    """Where they lie whole on this disk; empty if they do not."""
