"""What cuts hold: ordinary GGUF files of the kept experts' own rows, and all else as it was."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import gguf
import numpy as np
import pytest

from mesh_llm.core.errors import RequestRefused
from mesh_llm.core.experts import Kept
from mesh_llm.models.experts.detection import expert_bytes, expert_layer
from mesh_llm.models.experts.layout import Origin, cut_layout
from mesh_llm.models.gguf.header import read_file_header
from tests.experts.tiny_moe import TINY_MIXTURES, write_tiny_mixture
from tests.models.experts.cuts import IDENTITY, cut_file, drawn_kept, headers, shape_of
from tests.tiny_models import write_tiny_model


def weights(files: Sequence[Path]) -> dict[str, np.ndarray]:
    return {tensor.name: tensor.data for file in files for tensor in gguf.GGUFReader(file).tensors}


@pytest.mark.parametrize("name", TINY_MIXTURES)
@pytest.mark.parametrize("tensors_per_file", [0, 7])
def test_the_rows_of_a_cut_are_the_models(tmp_path: Path, name: str, tensors_per_file: int) -> None:
    files = write_tiny_mixture(tmp_path / "m.gguf", name, tensors_per_file=tensors_per_file)
    model, parts = weights(files), headers(files)
    kept = drawn_kept(parts, shape_of(parts).experts * 3 // 4)
    cut = cut_file(files, kept, tmp_path / "cut.gguf")
    found = weights([cut])
    assert found.keys() == model.keys()
    for tensor, data in found.items():
        layer = expert_layer(tensor)
        expected = model[tensor] if layer is None else model[tensor][list(kept.by_layer[layer])]
        assert np.array_equal(data, expected), tensor
    told = read_file_header(cut)
    assert told.bytes_expected == cut.stat().st_size
    assert not [key for key in told.metadata if key.startswith("split.")]
    trunk, each = expert_bytes(parts)
    assert told.weights_bytes == cut_layout(parts, kept).assigned_bytes == trunk + kept.count * each


def test_a_split_model_has_the_same_cut_as_a_single_file(tmp_path: Path) -> None:
    cuts = []
    for number in (0, 5):
        files = write_tiny_mixture(tmp_path / f"{number}.gguf", "deepseek2", tensors_per_file=number)
        cuts.append(cut_file(files, drawn_kept(headers(files), 5), tmp_path / f"cut-{number}.gguf"))
    assert cuts[0].read_bytes() == cuts[1].read_bytes()


@pytest.mark.parametrize("name", TINY_MIXTURES)
def test_a_cut_of_all_experts_has_the_models_tensors(tmp_path: Path, name: str) -> None:
    files = write_tiny_mixture(tmp_path / "m.gguf", name)
    parts = headers(files)
    cut = read_file_header(cut_file(files, drawn_kept(parts, shape_of(parts).experts), tmp_path / "cut.gguf"))
    assert cut.tensors == parts[0].tensors
    added = {"expert_feed_forward_length"} if name in ("qwen3moe without its width", "olmoe") else set()
    assert {key.partition(".")[2] for key in cut.metadata.keys() - parts[0].metadata.keys()} == added
    assert {key: cut.metadata[key] for key in parts[0].metadata} == parts[0].metadata
    assert weights([tmp_path / "cut.gguf"]).keys() == weights(files).keys()


@pytest.mark.parametrize(("count", "used"), [(8, 4), (4, 4), (3, 3), (2, 2)])
def test_a_token_uses_as_many_experts_as_before_while_there_are_so_many(
    tmp_path: Path, count: int, used: int
) -> None:
    files = write_tiny_mixture(tmp_path / "m.gguf", "qwen3moe without its width")
    told = read_file_header(cut_file(files, drawn_kept(headers(files), count), tmp_path / "c.gguf")).metadata
    assert (told["qwen3moe.expert_count"], told["qwen3moe.expert_used_count"]) == (count, used)
    assert told["qwen3moe.expert_feed_forward_length"] == 32


def test_groups_stay_and_no_token_uses_more_than_its_groups_hold(tmp_path: Path) -> None:
    parts = headers(write_tiny_mixture(tmp_path / "m.gguf", "deepseek2 with groups"))
    metadata = {**parts[0].metadata, "deepseek2.expert_used_count": 6}
    parts = [replace(parts[0], metadata=metadata)]
    cut = tmp_path / "cut.gguf"
    for count, used in ((12, 6), (8, 4)):
        layout = cut_layout(parts, drawn_kept(parts, count))
        cut.write_bytes(b"".join(literal.data for literal in layout.literals))
        assert f"expert_used_count\x04\0\0\0{chr(used)}\0\0\0".encode() in cut.read_bytes()
        assert b"expert_group" not in cut.read_bytes()


def test_each_layer_by_itself_where_layers_use_different_numbers(tmp_path: Path) -> None:
    parts = headers(write_tiny_mixture(tmp_path / "m.gguf", "deepseek2"))
    metadata = {**parts[0].metadata, "deepseek2.expert_used_count": (0, 6, 3)}
    layout = cut_layout([replace(parts[0], metadata=metadata)], drawn_kept(parts, 5))
    own = b"".join(literal.data for literal in layout.literals)
    assert b"".join(number.to_bytes(4, "little") for number in (0, 5, 3)) in own


def test_a_cut_says_what_it_was_made_of(tmp_path: Path) -> None:
    files = write_tiny_mixture(tmp_path / "m.gguf", "qwen3moe")
    kept = drawn_kept(headers(files), 6)
    layout = cut_layout(headers(files), kept, Origin(IDENTITY, "ef" * 16))
    own = b"".join(literal.data for literal in layout.literals)
    for said in (IDENTITY, "ef" * 16, kept.digest):
        assert said.encode() in own


def test_a_cut_of_a_cut_says_what_it_was_made_of_itself(tmp_path: Path) -> None:
    files = write_tiny_mixture(tmp_path / "m.gguf", "qwen3moe")
    kept = drawn_kept(headers(files), 6)
    first = tmp_path / "first.gguf"
    layout = cut_layout(headers(files), kept, Origin("ab" * 32, "ef" * 16))
    content = bytearray(layout.bytes)
    for literal in layout.literals:
        content[literal.target : literal.target + len(literal.data)] = literal.data
    for copy in layout.copies:
        data = files[0].read_bytes()[copy.offset : copy.offset + copy.length]
        content[copy.target : copy.target + copy.length] = data
    first.write_bytes(content)
    told = read_file_header(first).metadata
    assert (told["mesh_llm.cut.model"], told["mesh_llm.cut.kept"]) == ("ab" * 32, 6)
    second = read_file_header(cut_file([first], drawn_kept(headers([first]), 5), tmp_path / "second.gguf"))
    assert not [key for key in second.metadata if key.startswith("mesh_llm.")]


def test_what_cannot_be_kept_is_refused_with_the_cure(tmp_path: Path) -> None:
    grouped = headers(write_tiny_mixture(tmp_path / "g.gguf", "deepseek2 with groups"))
    plain = headers(write_tiny_mixture(tmp_path / "p.gguf", "qwen3moe"))
    dense = headers(write_tiny_model(tmp_path / "d.gguf", "llama"))
    uneven = Kept(dict.fromkeys((1, 2), (0, 1, 2, 3, 4, 5, 8, 12)))
    for parts, kept, why in (
        (grouped, uneven, "equally many of each"),
        (grouped, Kept(dict.fromkeys((1, 2), (0, 4, 8, 12))), "keep 8 to 16, a multiple of 4"),
        (plain, Kept(dict.fromkeys(range(3), (0,))), "keep 2 to 8"),
        (plain, Kept(dict.fromkeys(range(3), (0, 8))), "no expert 8 in layer 0"),
        (plain, Kept(dict.fromkeys(range(2), (0, 1))), "experts in layer 2"),
        (dense, Kept({0: (0, 1)}), "no mixture of experts"),
    ):
        with pytest.raises(RequestRefused, match=why):
            cut_layout(parts, kept)
