"""A ranking of experts out of an importance matrix, as many quantised models are published with.

Counterpart: `IMatrixCollector::save_imatrix` of llama.cpp's imatrix.cpp. For each tensor it has the sum of
the squares of what went in, and how often something went in: for tensors of experts, of each expert.
An expert's rank is uses x root mean square of what goes into its `ffn_down`, which stands for its output: the
weights themselves are not looked at, nor what the router gave each use. A measured ranking is better.
"""

import math
import re
from array import array
from collections.abc import Mapping
from pathlib import Path
from sys import byteorder

from mesh_llm.core.errors import RequestRefused
from mesh_llm.core.experts import ExpertRanking, ExpertShape, filled
from mesh_llm.models.gguf.contents import Header
from mesh_llm.models.gguf.header import MAGIC, read_header
from mesh_llm.models.gguf.source import FileSource, open_file
from mesh_llm.models.gguf.tensors import TensorInfo

COUNTS = "blk.{}.ffn_down_exps.weight.counts"
SQUARES = "blk.{}.ffn_down_exps.weight.in_sum2"

_COUNTS = re.compile(r"blk\.\d+\.ffn_down_exps\.weight\.counts")

TENSOR_BYTES_MAX = 64 * 2**20
"""1024 experts, which llama.cpp has at most, of 16,384 inputs each."""


def ranking_of_imatrix(path: Path, shape: ExpertShape, widths: Mapping[int, int]) -> ExpertRanking:
    """`widths`: neurons of one expert, by layer. Raises RequestRefused where the file is no importance matrix
    with counts of each expert, or of another model; ModelDamaged, ModelNotFound where it cannot be read."""
    with open_file(path) as source:
        if source.read(0, len(MAGIC)) != MAGIC:
            raise _refused(
                path,
                "it is no GGUF file: the older `.dat` form does not count how often each expert is used",
            )
        header = read_header(source)
        if header.metadata.get("general.type") != "imatrix":
            raise _refused(path, "it is no importance matrix")
        scores = _scores(source, header, shape, widths)
    lists = {layer: _best_first(of_layer) for layer, of_layer in scores.items()}
    return ExpertRanking.of(filled(lists, shape), f"importance matrix {path.name}")


def _scores(
    source: FileSource, header: Header, shape: ExpertShape, widths: Mapping[int, int]
) -> Mapping[int, list[float]]:
    """Of the layers up to the last that ran: those behind only draft."""
    path = Path(header.name)
    tensors = {tensor.name: tensor for tensor in header.tensors}
    there = [layer for layer in shape.layers if COUNTS.format(layer) in tensors]
    if not there or there != list(shape.layers[: len(there)]):
        layer = next(layer for layer in shape.layers if layer not in there)
        raise _refused(path, f"it says nothing of the experts of layer {layer}: it is of another model")
    counted = sum(_COUNTS.fullmatch(name) is not None for name in tensors)
    if counted > len(there):
        raise _refused(path, f"it has experts in {counted} layers: it is of another model")
    for layer in there:
        _check_width(path, tensors.get(SQUARES.format(layer)), layer, widths[layer])
    return {layer: _of_layer(source, header, tensors, layer, shape) for layer in there}


def _check_width(path: Path, squares: TensorInfo | None, layer: int, width: int) -> None:
    if squares is not None and squares.dimensions[:1] != (width,):
        raise _refused(
            path,
            f"its experts of layer {layer} do not have the model's {width} neurons: it is of another model",
        )


def _of_layer(
    source: FileSource, header: Header, tensors: Mapping[str, TensorInfo], layer: int, shape: ExpertShape
) -> list[float]:
    path = Path(header.name)
    counts = _floats(source, header, tensors[COUNTS.format(layer)])
    if len(counts) == 1 < shape.experts:
        raise _refused(path, "it does not count how often each expert is used: it was made of a `.dat` file")
    if len(counts) != shape.experts:
        raise _refused(path, f"it counts {len(counts)} experts, the model has {shape.experts}")
    squares = _squares(source, header, tensors.get(SQUARES.format(layer)), shape.experts)
    if not all(math.isfinite(each) and each >= 0 for each in (*counts, *squares)):
        raise _refused(path, f"its numbers for layer {layer} are impossible")
    scores = [math.sqrt(count) * math.sqrt(each) for count, each in zip(counts, squares, strict=True)]
    if not any(scores):  # all would be equal, and their order that of their numbers
        raise _refused(path, f"no expert of layer {layer} was used for it")
    return scores


def _squares(source: FileSource, header: Header, tensor: TensorInfo | None, experts: int) -> list[float]:
    """Of all inputs of each expert together."""
    path = Path(header.name)
    if tensor is None or tensor.dimensions[-1:] != (experts,):
        raise _refused(path, "it does not say what went into each expert")
    values = _floats(source, header, tensor)
    width = len(values) // experts
    return [math.fsum(values[expert * width : (expert + 1) * width]) for expert in range(experts)]


def _floats(source: FileSource, header: Header, tensor: TensorInfo) -> "array[float]":
    if tensor.storage.name != "F32" or tensor.bytes > TENSOR_BYTES_MAX:
        raise _refused(
            Path(header.name), f"`{tensor.name}` has {tensor.bytes:,} bytes of {tensor.storage.name}"
        )
    values = array("f")
    values.frombytes(source.read(header.data_offset + tensor.offset, tensor.bytes))
    if byteorder == "big":
        values.byteswap()
    return values


def _best_first(scores: list[float]) -> tuple[int, ...]:
    """Of equal ones the first."""
    return tuple(sorted(range(len(scores)), key=lambda expert: -scores[expert]))


def _refused(path: Path, why: str) -> RequestRefused:
    return RequestRefused(
        f"{path.name} cannot rank this model's experts: {why}. Name an importance matrix of this model in "
        "the GGUF form, or none: then its experts are measured.",
        parameter="imatrix",
    )
