"""What a stage file holds and where each of its bytes comes from.

Pure: headers and a range of layers in, pieces out. Counterparts: `composition.py` puts the pieces together,
`writing.py` carries it out, `stage_keys.py` says which metadata changes. The file is an ordinary GGUF
(version 3) of one part, its layers counted from 0.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace

from mesh_llm.core.errors import RequestRefused
from mesh_llm.core.stages import LayerRange
from mesh_llm.models.gguf.contents import Header
from mesh_llm.models.gguf.keys import Keys
from mesh_llm.models.gguf.model_facts import check_parts
from mesh_llm.models.gguf.stageable import EMBEDDING, OUTPUT, layer_of, lengths_refused, stageable, trunk_of
from mesh_llm.models.gguf.tensors import TensorInfo
from mesh_llm.models.stages.composition import FileLayout, Stretch, Taken, composed
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


def stage_layout(parts: Sequence[Header], layers: LayerRange, *, is_head: bool) -> FileLayout:
    """The file of one stage. Raises RequestRefused where the model cannot be cut there, ModelDamaged.

    `is_head`: these are the last layers; the file also has the output head, the embedding and the tokenizer.
    A head of all layers is the whole model in one file.
    """
    check_parts(parts)
    _check_cut(parts, layers, is_head=is_head)
    dropped, changed = stage_keys(parts, layers, is_head=is_head)
    return composed(parts, _taken(parts, layers, is_head=is_head), dropped, changed)


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


def _taken(parts: Sequence[Header], layers: LayerRange, *, is_head: bool) -> Iterator[Taken]:
    for number, part in enumerate(parts):
        for tensor in part.tensors:
            given = _as_given(tensor, layers, is_head=is_head)
            if given is not None:
                yield Taken(given, number, (Stretch(part.data_offset + tensor.offset, given.bytes),))


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
