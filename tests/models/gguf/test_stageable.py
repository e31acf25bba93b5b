"""Which models can be cut, where, and what their engines must know."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest

from mesh_llm.core.errors import RequestRefused
from mesh_llm.models.gguf.contents import Header, Value
from mesh_llm.models.gguf.header import read_file_header
from mesh_llm.models.gguf.keys import Keys
from mesh_llm.models.gguf.stageable import (
    STAGEABLE,
    cuttable,
    embedding_scale,
    entrance_name,
    layer_of,
    lengths_refused,
    residual_name,
    stageable,
)
from tests.tiny_models import TINY_MODELS, WIDTH, write_tiny_model

FEW: dict[str, Value] = {"block_count": 8, "embedding_length": 64, "attention.head_count": 4}


def header(architecture: str, keys: Mapping[str, Value]) -> Header:
    metadata: dict[str, Value] = {"general.architecture": architecture}
    for key, value in {**FEW, **keys}.items():
        metadata[key if key.startswith(("general.", "tokenizer.")) else f"{architecture}.{key}"] = value
    return Header("test.gguf", 3, metadata, (), 32, 0, 0)


def refusal(architecture: str, keys: Mapping[str, Value]) -> str:
    with pytest.raises(RequestRefused) as caught:
        cuttable([header(architecture, keys)])
    return str(caught.value)


@pytest.mark.parametrize("architecture", sorted(TINY_MODELS.keys() & STAGEABLE.keys()))
def test_bytes_of_layers_and_of_the_rest_are_all_bytes(tmp_path: Path, architecture: str) -> None:
    parts = [
        read_file_header(file)
        for file in write_tiny_model(tmp_path / "m.gguf", architecture, tensors_per_file=11)
    ]
    cut = cuttable(parts)
    total = sum(part.weights_bytes for part in parts)
    assert len(parts) > 1 and len(cut.layer_bytes) == cut.facts.layers == TINY_MODELS[architecture].layers
    assert sum(cut.layer_bytes) + cut.output_bytes + cut.embedding_bytes == cut.facts.weights_bytes == total
    assert (cut.embedding_bytes == 0) == TINY_MODELS[architecture].is_tied
    assert cut.output_bytes > 4 * WIDTH


def test_an_architecture_that_is_not_known_is_refused_by_name() -> None:
    said = refusal("mamba", {})
    assert "test.gguf (architecture `mamba`) cannot be split (yet)" in said and "Run it on a node" in said


@pytest.mark.parametrize(
    ("architecture", "keys", "words"),
    [
        ("qwen3", {"pooling_type": 3}, "embeddings, not text"),
        ("hunyuan-dense", {"rope.dimension_sections": (16, 24, 24, 0)}, "several dimensions"),
        ("granite", {"deepstack_mapping": (0, -1)}, "pictures"),
        ("llama", {"general.tensor_extra.name": ("blk.0.attn_q.weight",)}, "single tensors by name"),
        ("exaone4", {"block_count": 64}, "by its 64 layers"),
        ("command-r", {"block_count": 64}, "by its 64 layers"),
        ("gemma2", {"block_count": 46, "attention.key_length": 128}, "by its 46 layers"),
        ("gemma3", {"block_count": 62, "attention.key_length": 128}, "by its 62 layers"),
    ],
)
def test_what_would_not_be_exact_is_refused(architecture: str, keys: Mapping[str, Value], words: str) -> None:
    assert words in refusal(architecture, keys)


def test_cuts_follow_the_period_of_a_graph_that_counts_its_layers() -> None:
    assert cuttable([header("smollm3", {"block_count": 12})]).cuts == (4, 8)
    assert cuttable([header("llama", {})]).cuts == tuple(range(1, 8))


def test_a_stage_needs_a_layer_that_slides_where_others_do() -> None:
    window: dict[str, Value] = {"attention.sliding_window": 8}
    assert cuttable([header("gpt-oss", window)]).lengths_refused == (1,)
    listed = (True, False, False, False, True, False, False, True)
    several = window | {"attention.sliding_window_pattern": listed}
    assert lengths_refused([header("gemma3", several)]) >= {1, 2, 3}
    assert lengths_refused([header("olmo2", {})]) == set()


@pytest.mark.parametrize(
    ("keys", "refused"),
    [
        ({"block_count": 61}, {26, 27}),
        ({"block_count": 61, "vocab_size": 128_256}, {26, 27, 48}),
        ({"block_count": 27}, set()),
        ({"block_count": 48, "vocab_size": 128_256}, set()),
    ],
)
def test_deepseek2_is_never_as_long_as_one_of_its_lite_models(
    keys: Mapping[str, Value], refused: set[int]
) -> None:
    assert lengths_refused([header("deepseek2", keys)]) == refused


def test_what_the_engine_guesses_from_the_number_of_layers_is_told() -> None:
    def told(architecture: str, keys: Mapping[str, Value]) -> Mapping[str, object]:
        part = header(architecture, keys)
        return stageable([part]).guesses(Keys(part.name, part.metadata))

    assert told("deepseek2", {"block_count": 27}) == {"attention.q_lora_rank": 0, "expert_gating_func": 1}
    assert told("deepseek2", {"block_count": 47, "vocab_size": 154_880}) == {"expert_gating_func": 2}
    assert told("deepseek2", {"block_count": 61, "expert_gating_func": 2}) == {}
    assert told("minicpm", {"block_count": 40}) == {
        "residual_scale": float(np.float32(1.4) / np.sqrt(np.float32(40)))
    }
    assert told("minicpm", {"residual_scale": 0.25}) == {}


def test_layers_that_only_draft_belong_to_no_stage() -> None:
    assert cuttable([header("exaone4", {"nextn_predict_layers": 1})]).cuts == tuple(range(1, 7))


def test_engines_are_told_the_residual_and_the_scale() -> None:
    assert residual_name(12) == "l_out-11"
    assert embedding_scale([header("gemma3", {})]) == embedding_scale([header("gemma2", {})]) == 8.0
    assert entrance_name([header("gemma2", {})]) == "inp_scaled"
    assert entrance_name([header("gemma3", {})]) is None
    assert embedding_scale([header("granite", {"embedding_scale": 12.0})]) == 1.0


@pytest.mark.parametrize(
    ("name", "layer"),
    [
        ("blk.12.attn_q.weight", 12),
        ("blk.x.attn_q.weight", None),
        ("blk", None),
        ("blk.\u0663.w", None),
        ("blk.999999999.w", None),
        ("output.weight", None),
    ],
)
def test_the_layer_of_a_tensor_is_in_its_name(name: str, layer: int | None) -> None:
    assert layer_of(name) == layer
