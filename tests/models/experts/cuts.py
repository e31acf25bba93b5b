"""Cuts as tests make them: which experts, of which tiny mixture, and the file written at once."""

from collections.abc import Sequence
from pathlib import Path
from random import Random

from mesh_llm.core.experts import ExpertRanking, ExpertShape, Kept, best
from mesh_llm.models.experts.detection import detect
from mesh_llm.models.experts.layout import cut_layout
from mesh_llm.models.gguf.contents import Header
from mesh_llm.models.gguf.header import read_file_header
from mesh_llm.models.stages.composition import FileLayout

IDENTITY = "cd" * 32


def headers(files: Sequence[Path]) -> list[Header]:
    return [read_file_header(file) for file in files]


def shape_of(parts: Sequence[Header]) -> ExpertShape:
    shape = detect(parts)
    assert shape is not None
    return shape


def drawn_ranking(shape: ExpertShape, seed: int = 0) -> ExpertRanking:
    """Another order in each layer."""
    chance = Random(seed)
    experts = range(shape.experts)
    return ExpertRanking.of(
        {layer: tuple(chance.sample(experts, len(experts))) for layer in shape.layers}, "drawn"
    )


def drawn_kept(parts: Sequence[Header], count: int, seed: int = 0) -> Kept:
    shape = shape_of(parts)
    return best(drawn_ranking(shape, seed), count, shape)


def dropped(kept: Kept, experts: int) -> dict[int, list[int]]:
    return {
        layer: [each for each in range(experts) if each not in ids] for layer, ids in kept.by_layer.items()
    }


def written(layout: FileLayout, files: Sequence[Path], target: Path) -> Path:
    content = bytearray(layout.bytes)
    for literal in layout.literals:
        content[literal.target : literal.target + len(literal.data)] = literal.data
    for copy in layout.copies:
        data = files[copy.part].read_bytes()[copy.offset : copy.offset + copy.length]
        content[copy.target : copy.target + copy.length] = data
    target.write_bytes(content)
    return target


def cut_file(files: Sequence[Path], kept: Kept, target: Path) -> Path:
    return written(cut_layout(headers(files), kept), files, target)
