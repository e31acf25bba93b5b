"""What a GGUF header says, as values. Counterpart: `header.py`, which reads it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from mesh_llm.models.gguf.tensors import TensorInfo


@dataclass(frozen=True, slots=True)
class Skipped:
    """A value that is not kept: an array of `count` entries of a kind, or a `text` of `count` bytes."""

    kind: Literal["number", "string", "text"]
    count: int


Scalar = int | float | bool | str
Value = Scalar | tuple[Scalar, ...] | Skipped


@dataclass(frozen=True, slots=True)
class Span:
    """A stretch of the file, in bytes."""

    offset: int
    length: int


@dataclass(frozen=True, slots=True)
class Header:
    """All numbers in bytes count from the start of the file."""

    name: str
    """Of the source it was read from."""
    version: int
    metadata: Mapping[str, Value]
    tensors: tuple[TensorInfo, ...]
    alignment: int
    data_offset: int
    """Where the weights begin."""
    bytes_expected: int
    """Where the last tensor ends. A whole file has at least these bytes."""
    spans: Mapping[str, Span] = field(default_factory=dict[str, Span])
    """Where each key lies, its name, kind and value together: what is not kept can still be copied."""

    @property
    def weights_bytes(self) -> int:
        return sum(tensor.bytes for tensor in self.tensors)
