"""What stage files hold: ordinary GGUF files, their layers counted from 0, nothing of the model changed."""

import itertools
import re
from collections.abc import Sequence
from pathlib import Path

import gguf
import numpy as np
import pytest

from mesh_llm.core.errors import ModelDamaged, RequestRefused
from mesh_llm.core.stages import LayerRange
from mesh_llm.models.gguf.contents import Header, Skipped
from mesh_llm.models.gguf.header import read_file_header
from mesh_llm.models.gguf.stageable import STAGEABLE, cuttable, embedding_scale, entrance_name
from mesh_llm.models.stages.composition import FileLayout
from mesh_llm.models.stages.layout import stage_layout
from mesh_llm.models.stages.stage_keys import stage_keys
from tests.engine.stage.chains import chain, whole
from tests.engine.stage.test_exactness import greedy_differences, largest
from tests.more_tiny_models import MORE_TINY_MODELS
from tests.tiny_models import TINY_MODELS, write_tiny_model

KNOWN = sorted(TINY_MODELS.keys() & STAGEABLE.keys())


def headers(files: Sequence[Path]) -> list[Header]:
    return [read_file_header(file) for file in files]


def written(layout: FileLayout, files: Sequence[Path], target: Path) -> Path:
    content = bytearray(layout.bytes)
    for literal in layout.literals:
        content[literal.target : literal.target + len(literal.data)] = literal.data
    for copy in layout.copies:
        data = files[copy.part].read_bytes()[copy.offset : copy.offset + copy.length]
        content[copy.target : copy.target + copy.length] = data
    target.write_bytes(content)
    return target


def weights(files: Sequence[Path]) -> dict[str, np.ndarray]:
    return {tensor.name: tensor.data for file in files for tensor in gguf.GGUFReader(file).tensors}


@pytest.mark.parametrize("architecture", KNOWN)
@pytest.mark.parametrize("tensors_per_file", [0, 7])
def test_stages_have_the_models_own_tensors(tmp_path: Path, architecture: str, tensors_per_file: int) -> None:
    files = write_tiny_model(tmp_path / "m.gguf", architecture, tensors_per_file=tensors_per_file)
    parts, model, seen = headers(files), weights(files), set[str]()
    for layers, is_head in (
        (LayerRange(0, 4), False),
        (LayerRange(4, TINY_MODELS[architecture].layers), True),
    ):
        layout = stage_layout(parts, layers, is_head=is_head)
        stage = written(layout, files, tmp_path / "stage.gguf")
        for name, data in weights([stage]).items():
            number = re.match(r"blk\.(\d+)\.", name)
            original = (
                name if number is None else f"blk.{int(number[1]) + layers.first}.{name[number.end() :]}"
            )
            seen.add(original)
            assert np.array_equal(data, model[original][: len(data)])
            is_row = not is_head and name in ("token_embd.weight", "output.weight")
            assert len(data) == 1 if is_row else data.shape == model[original].shape
        assert read_file_header(stage).weights_bytes == layout.assigned_bytes
        assert read_file_header(stage).bytes_expected == layout.bytes
    assert seen == model.keys()


def test_a_remote_stage_has_no_vocabulary_and_a_head_has_all_of_it(tmp_path: Path) -> None:
    files = write_tiny_model(tmp_path / "m.gguf", "qwen2")
    parts = headers(files)
    remote = stage_layout(parts, LayerRange(0, 2), is_head=False)
    told = read_file_header(written(remote, files, tmp_path / "remote.gguf")).metadata
    assert [key for key in told if key.startswith("tokenizer.")] == ["tokenizer.ggml.model"]
    assert (told["tokenizer.ggml.model"], told["qwen2.vocab_size"]) == ("no_vocab", 1)
    head = stage_layout(parts, LayerRange(2, 6), is_head=True)
    told = read_file_header(written(head, files, tmp_path / "head.gguf")).metadata
    changed = {"qwen2.block_count": 4}
    assert told == {**parts[0].metadata, **changed}
    assert isinstance(told["tokenizer.ggml.tokens"], Skipped)
    fields = [gguf.GGUFReader(file).fields for file in (files[0], tmp_path / "head.gguf")]
    for key in ("tokenizer.ggml.tokens", "tokenizer.ggml.merges", "tokenizer.chat_template"):
        assert fields[0][key].contents() == fields[1][key].contents()


def test_what_counts_layers_is_counted_anew(tmp_path: Path) -> None:
    parts = headers(write_tiny_model(tmp_path / "m.gguf", "deepseek2"))
    for layers, dense in ((LayerRange(0, 1), 2), (LayerRange(1, 4), 1), (LayerRange(3, 6), 0)):
        _, changed = stage_keys(parts, layers, is_head=layers.end == 6)
        assert changed["deepseek2.leading_dense_block_count"] == dense
        assert changed["deepseek2.block_count"] == layers.count


def test_arrays_of_one_entry_a_layer_are_cut() -> None:
    metadata = {
        "general.architecture": "apertus",
        "apertus.block_count": 4,
        "apertus.attention.head_count_kv": (1, 2, 3, 4),
        "apertus.feed_forward_length": (10, 20, 30, 40),
        "apertus.rope.dimension_sections": (1, 0, 0, 0),
        "xielu.alpha_n": (0.5, 1.5, 2.5, 3.5),
        "split.count": 1,
    }
    dropped, changed = stage_keys([Header("m", 3, metadata, (), 32, 0, 0)], LayerRange(1, 3), is_head=False)
    assert changed["apertus.attention.head_count_kv"] == (2, 3)
    assert changed["apertus.feed_forward_length"] == (20, 30)
    assert changed["xielu.alpha_n"] == (1.5, 2.5)
    assert "apertus.rope.dimension_sections" not in changed and dropped == {"split.count"}
    metadata["xielu.alpha_n"] = (0.5,)
    with pytest.raises(ModelDamaged, match="alpha_n"):
        stage_keys([Header("m", 3, metadata, (), 32, 0, 0)], LayerRange(1, 3), is_head=False)


def test_only_the_first_stage_scales_vectors(tmp_path: Path) -> None:
    parts = headers(write_tiny_model(tmp_path / "m.gguf", "granite"))
    key = "granite.embedding_scale"
    assert key not in stage_keys(parts, LayerRange(0, 2), is_head=False)[1]
    assert stage_keys(parts, LayerRange(2, 4), is_head=False)[1][key] == 1.0
    assert stage_keys(parts, LayerRange(2, 6), is_head=True)[1][key] == 1.0


@pytest.mark.parametrize(
    ("architecture", "layers", "is_head", "words"),
    [
        ("smollm3", LayerRange(3, 8), True, "multiples of 4"),
        ("gpt-oss", LayerRange(1, 2), False, "because they are 1"),
        ("llama", LayerRange(2, 6), False, "no stage of 6"),
        ("llama", LayerRange(2, 4), True, "no head of 6"),
        ("llama", LayerRange(2, 7), True, "no head of 6"),
    ],
)
def test_cuts_that_cannot_be_are_refused(
    tmp_path: Path, architecture: str, layers: LayerRange, is_head: bool, words: str
) -> None:
    parts = headers(write_tiny_model(tmp_path / "m.gguf", architecture))
    with pytest.raises(RequestRefused, match=words):
        stage_layout(parts, layers, is_head=is_head)


@pytest.mark.parametrize("tensors_per_file", [0, 7])
def test_bytes_that_lie_side_by_side_are_copied_at_once(tmp_path: Path, tensors_per_file: int) -> None:
    files = write_tiny_model(tmp_path / "m.gguf", "phi3", tensors_per_file=tensors_per_file)
    for layers, is_head in ((LayerRange(1, 3), False), (LayerRange(3, 6), True), (LayerRange(0, 6), True)):
        layout = stage_layout(headers(files), layers, is_head=is_head)
        for before, after in itertools.pairwise(layout.copies):
            assert before.target + before.length <= after.target
            touch = before.part == after.part and before.offset + before.length == after.offset
            assert not (touch and before.target + before.length == after.target)
        taken = [(copy.target, copy.length) for copy in layout.copies]
        taken += [(literal.target, len(literal.data)) for literal in layout.literals]
        for (start, length), (following, _) in itertools.pairwise(sorted(taken)):
            assert start + length <= following
        assert sum(copy.length for copy in layout.copies) <= layout.bytes
        if not tensors_per_file:
            assert len(layout.copies) <= 10


def cut(source: Path, path: Path, first: int, end: int) -> Path:
    parts = headers([source])
    is_head = end == len(cuttable(parts).layer_bytes)
    return written(stage_layout(parts, LayerRange(first, end), is_head=is_head), [source], path)


async def largest_difference(source: Path, cuts: tuple[int, ...], folder: Path) -> float:
    parts = headers([source])
    scale, entrance = embedding_scale(parts), entrance_name(parts)
    with whole(source) as model:
        async with chain(source, cuts, folder, scale=scale, entrance=entrance, cut=cut) as stages:
            return largest(await greedy_differences(model, stages, vocabulary=250))


@pytest.mark.real
@pytest.mark.parametrize(
    ("architecture", "cuts"), [("gemma3", (3, 7)), ("gpt-oss", (3,)), ("deepseek2", (1,)), ("gemma3", (5,))]
)
async def test_windows_and_dense_layers_are_right_wherever_the_model_is_cut(
    tmp_path: Path, architecture: str, cuts: tuple[int, ...]
) -> None:
    """Off the window's pattern, and within the leading dense layers."""
    (source,) = write_tiny_model(tmp_path / "whole.gguf", architecture)
    assert await largest_difference(source, cuts, tmp_path) == 0.0


@pytest.mark.real
@pytest.mark.parametrize("architecture", sorted(MORE_TINY_MODELS.keys() & STAGEABLE.keys()))
async def test_what_the_table_says_of_further_architectures_is_true(
    tmp_path: Path, architecture: str
) -> None:
    tiny = MORE_TINY_MODELS[architecture]
    (source,) = write_tiny_model(tmp_path / "whole.gguf", architecture, tiny=tiny)
    assert await largest_difference(source, (2, 5), tmp_path) == 0.0


@pytest.mark.real
@pytest.mark.parametrize("cuts", [(15,), (10, 20)])
async def test_a_mixture_that_speaks_english_is_exact_in_stages(
    tmp_path: Path, moe_model: Path, cuts: tuple[int, ...]
) -> None:
    """All of its experts: what cuts by experts are held against."""
    assert await largest_difference(moe_model, cuts, tmp_path) == 0.0


@pytest.mark.real
async def test_a_head_of_all_layers_is_the_model(tmp_path: Path) -> None:
    files = write_tiny_model(tmp_path / "m.gguf", "qwen3moe", tensors_per_file=9)
    one = written(stage_layout(headers(files), LayerRange(0, 6), is_head=True), files, tmp_path / "one.gguf")
    tokens = [10, 20, 30, 40, 250]
    answers: list[np.ndarray] = []
    for file in (files[0], one):
        with whole(file) as model:
            answers.append(model("decode", [0] * 5, list(range(5)), tokens=tokens))
    assert np.array_equal(*answers)


def test_no_architecture_is_in_the_table_that_was_not_held_against_the_engine() -> None:
    assert STAGEABLE.keys() <= TINY_MODELS.keys() | MORE_TINY_MODELS.keys()
