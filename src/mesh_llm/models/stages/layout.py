"""What a stage file holds and where each of its bytes comes from.

Pure: headers and a range of layers in, pieces out. Counterparts: `writing.py` carries it out, `stage_keys.py`
says which metadata changes. The file is an ordinary GGUF (version 3) of one part, its layers counted from 0.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

from mesh_llm.core.errors import RequestRefused
from mesh_llm.core.stages import LayerRange
from mesh_llm.models.gguf.contents import Header
from mesh_llm.models.gguf.encoding import pack_key, pack_start, pack_tensor
from mesh_llm.models.gguf.keys import Keys
from mesh_llm.models.gguf.model_facts import check_parts
from mesh_llm.models.gguf.stageable import EMBEDDING, OUTPUT, layer_of, lengths_refused, stageable, trunk_of
from mesh_llm.models.gguf.tensors import TensorInfo
from mesh_llm.models.stages.stage_keys import stage_keys

SHARED = frozenset(
    {
        "output.input_scale",
        "output.scale",
        "output_norm.bias",
        "output_norm.weight",
        "rope_factors_long.weight",
        "rope_factors_short.weight",
        "rope_freqs.weight",
    }
)
"""Tensors of the whole model that llama.cpp asks of a file without an output head too; all are small."""

OF_EACH_TOKEN = frozenset({EMBEDDING, OUTPUT, "output.bias"})
"""So it does of these; a vocabulary of one token makes one row of them."""


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

    def continues(self, other: "Copy", gap_max: int) -> bool:
        """Whether both can be read at once, with what lies between them."""
        gap = self.target - other.target - other.length
        moved = self.offset - self.target == other.offset - other.target
        return self.part == other.part and moved and 0 <= gap <= gap_max


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
    """Ascending by target; none continues the one before."""
    bytes: int
    """Of the whole stage file."""
    assigned_bytes: int
    """Of the tensors that the stage was given."""


@dataclass(frozen=True, slots=True)
class _Taken:
    """A tensor of the stage, and where it comes from. `tensor.offset` is set when it has found its place."""

    tensor: TensorInfo
    part: int
    offset: int


def stage_layout(parts: Sequence[Header], layers: LayerRange, *, is_head: bool) -> StageLayout:
    """The file of one stage. Raises RequestRefused where the model cannot be cut there, ModelDamaged.

    `is_head`: these are the last layers; the file also has the output head, the embedding and the tokenizer.
    A head of all layers is the whole model in one file.
    """
    check_parts(parts)
    _check_cut(parts, layers, is_head=is_head)
    alignment = parts[0].alignment
    taken = _placed(
        sorted(_taken(parts, layers, is_head=is_head), key=lambda each: (each.part, each.offset)), alignment
    )
    head = _Pieces(0, [], [])
    _add_keys(head, parts, layers, is_head=is_head, tensors=len(taken))
    head.add(b"".join(pack_tensor(each.tensor) for each in taken))
    start = _padded(head.end, alignment)
    weights = [Copy(start + each.tensor.offset, each.part, each.offset, each.tensor.bytes) for each in taken]
    return StageLayout(
        literals=tuple(head.literals),
        copies=(*_joined(head.copies, 0), *_joined(weights, alignment - 1)),
        bytes=max(start, weights[-1].target + weights[-1].length),
        assigned_bytes=sum(each.tensor.bytes for each in taken),
    )


@dataclass(slots=True)
class _Pieces:
    """A stretch of the stage file, made from front to back."""

    end: int
    literals: list[Literal]
    copies: list[Copy]

    def add(self, data: bytes) -> None:
        self.literals.append(Literal(self.end, data))
        self.end += len(data)

    def copy(self, part: int, offset: int, length: int) -> None:
        self.copies.append(Copy(self.end, part, offset, length))
        self.end += length


def _check_cut(parts: Sequence[Header], layers: LayerRange, *, is_head: bool) -> None:
    known, keys = stageable(parts), Keys(parts[0].name, parts[0].metadata)
    trunk = trunk_of(keys)
    if layers.end > trunk or (layers.end == trunk) != is_head:
        raise RequestRefused(f"{layers} are no {'head' if is_head else 'stage'} of {trunk} layers.")
    if layers.first % known.period:
        raise RequestRefused(
            f"{keys.name} can be cut at multiples of {known.period} only, not before layer {layers.first}."
        )
    if layers.count in lengths_refused(parts):
        raise RequestRefused(
            f"{layers} of {keys.name} are no stage, because they are {layers.count}: the engine would take "
            "them for another model or not load them. Take more, or fewer."
        )


def _taken(parts: Sequence[Header], layers: LayerRange, *, is_head: bool) -> Iterator[_Taken]:
    for number, part in enumerate(parts):
        for tensor in part.tensors:
            given = _as_given(tensor, layers, is_head=is_head)
            if given is not None:
                yield _Taken(given, number, part.data_offset + tensor.offset)


def _as_given(tensor: TensorInfo, layers: LayerRange, *, is_head: bool) -> TensorInfo | None:
    """The tensor as the stage has it; None if it has not."""
    layer = layer_of(tensor.name)
    if layer is not None:
        if not layers.first <= layer < layers.end:
            return None
        rest = tensor.name.split(".", 2)[2]
        return replace(tensor, name=f"blk.{layer - layers.first}.{rest}")
    if is_head or tensor.name in SHARED:
        return tensor
    return _first_row(tensor) if tensor.name in OF_EACH_TOKEN else None


def _first_row(tensor: TensorInfo) -> TensorInfo:
    *row, count = tensor.dimensions
    return replace(tensor, dimensions=(*row, 1), bytes=tensor.bytes // count)


def _placed(taken: Iterable[_Taken], alignment: int) -> list[_Taken]:
    placed: list[_Taken] = []
    end = 0
    for each in taken:
        placed.append(replace(each, tensor=replace(each.tensor, offset=end)))
        end = _padded(end + each.tensor.bytes, alignment)
    return placed


def _add_keys(
    head: _Pieces, parts: Sequence[Header], layers: LayerRange, *, is_head: bool, tensors: int
) -> None:
    """In the model's order, so that what is copied stays together; new keys come last."""
    dropped, changed = stage_keys(parts, layers, is_head=is_head)
    spans = parts[0].spans
    new = [key for key in changed if key not in spans]
    head.add(pack_start(tensors, len(spans) - len(dropped) + len(new)))
    for key, span in spans.items():
        if key in changed:
            head.add(pack_key(key, changed[key]))
        elif key not in dropped:
            head.copy(0, span.offset, span.length)
    for key in new:
        head.add(pack_key(key, changed[key]))


def _joined(copies: Sequence[Copy], gap_max: int) -> list[Copy]:
    """Those that lie side by side in both files become one; the padding between tensors comes along."""
    joined = list(copies[:1])
    for before, copy in pairwise(copies):
        if copy.continues(before, gap_max):
            first = joined[-1]
            joined[-1] = replace(first, length=copy.target + copy.length - first.target)
        else:
            joined.append(copy)
    return joined


def _padded(offset: int, alignment: int) -> int:
    return -(-offset // alignment) * alignment
