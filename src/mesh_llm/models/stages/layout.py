"""What a stage file holds and where each of its bytes comes from."""

from collections.abc import Sequence
from dataclasses import dataclass

from mesh_llm.core.stages import LayerRange
from mesh_llm.models.gguf.contents import Header


@dataclass(frozen=True, slots=True)
class Copy:
    """Bytes of the model's files that the stage file has too."""

    target: int
    """Offset in the stage file."""
    part: int
    """Which of the model's files, from 0."""
    offset: int
    """In that file."""
    length: int


@dataclass(frozen=True, slots=True)
class Literal:
    """Bytes that are the stage file's own."""

    target: int
    data: bytes


@dataclass(frozen=True, slots=True)
class StageLayout:
    """`literals` and `copies` do not overlap; what neither covers is zero."""

    literals: tuple[Literal, ...]
    copies: tuple[Copy, ...]
    """Ascending by target."""
    bytes: int
    """Of the whole stage file."""
    assigned_bytes: int
    """Of the tensors that the stage was given."""


def stage_layout(parts: Sequence[Header], layers: LayerRange, *, is_head: bool) -> StageLayout:
    """The file of one stage. Raises RequestRefused where the model cannot be cut there, ModelDamaged.

    `is_head`: these are the last layers; the file also has the output head, the embedding and the tokenizer.
    A head of all layers is the whole model in one file.
    """
    raise NotImplementedError
