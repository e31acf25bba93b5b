"""Experts of random mixtures are measured in a real graph; `test_saliency.py` has the sums themselves."""

from collections.abc import Collection, Mapping
from pathlib import Path

import pytest

from mesh_llm.core.errors import EngineFailed
from mesh_llm.core.experts import ExpertShape
from mesh_llm.engine.experts.calibrating import Calibration, calibrate, measure
from mesh_llm.engine.experts.settings import Loading
from tests.experts.tiny_moe import TINY_MIXTURES, TinyMixture, write_tiny_mixture

pytestmark = pytest.mark.real

TOKENS = 1024
MASKED = (1, 5)


def shape_of(mixture: TinyMixture) -> ExpertShape:
    return ExpertShape(
        mixture.experts, mixture.used, mixture.expert_layers, mixture.groups, mixture.groups_used
    )


async def measured(
    folder: Path, name: str, masked: Mapping[int, Collection[int]] | None = None
) -> Calibration:
    (path,) = write_tiny_mixture(folder / "tiny.gguf", name, masked=masked)
    return await measure(path, shape_of(TINY_MIXTURES[name]), Loading(str(path), 1), tokens=TOKENS)


@pytest.mark.parametrize("name", ["qwen3moe", "olmoe", "gpt-oss", "deepseek2", "deepseek2 with groups"])
async def test_each_token_is_counted_for_each_expert_that_it_used(tmp_path: Path, name: str):
    mixture = TINY_MIXTURES[name]
    found = await measured(tmp_path, name)
    assert found.tokens == TOKENS
    assert {layer: sum(uses) for layer, uses in found.uses.items()} == dict.fromkeys(
        mixture.expert_layers, TOKENS * mixture.used
    )
    for layer, uses in found.uses.items():
        assert [count > 0 for count in uses] == [total > 0 for total in found.reap[layer]]


@pytest.mark.parametrize("name", ["gpt-oss", "deepseek2 with groups"])
async def test_experts_that_no_token_chooses_are_the_worst(tmp_path: Path, name: str):
    mixture = TINY_MIXTURES[name]
    found = await measured(tmp_path, name, masked=dict.fromkeys(mixture.expert_layers, MASKED))
    for layer in mixture.expert_layers:
        unused = [expert for expert, count in enumerate(found.uses[layer]) if count == 0]
        assert set(MASKED) <= set(unused)
        assert list(found.ranking.by_layer[layer][-len(unused) :]) == unused


async def test_weights_that_stay_mapped_rank_the_same_and_progress_is_told(tmp_path: Path):
    (path,) = write_tiny_mixture(tmp_path / "tiny.gguf", "qwen3moe")
    shape = shape_of(TINY_MIXTURES["qwen3moe"])
    told: list[tuple[str, float]] = []
    text = tmp_path / "own.txt"
    text.write_text("The cat sat on the mat. " * 2000)

    async def ranked(is_larger_than_memory: bool):
        return await calibrate(
            path,
            shape,
            threads=1,
            tokens=TOKENS,
            text=text,
            is_larger_than_memory=is_larger_than_memory,
            on_share=lambda word, share: told.append((word, share)),
        )

    assert (await ranked(True)).digest == (await ranked(False)).digest
    assert ("loading", 1.0) in told and [each for each in told if each[0] == "computing"][-1][1] == 1.0


async def test_a_model_without_those_experts_is_told_from_one_with_them(tmp_path: Path):
    (path,) = write_tiny_mixture(tmp_path / "tiny.gguf", "qwen3moe")
    with pytest.raises(EngineFailed, match="other tensors than those"):
        await calibrate(path, ExpertShape(9, 4, (0, 1, 2)), threads=1, tokens=TOKENS)
    with pytest.raises(EngineFailed, match="cannot be loaded"):
        await calibrate(tmp_path / "none.gguf", ExpertShape(8, 4, (0, 1, 2)), threads=1)


async def test_a_text_that_is_none_is_refused_with_the_reason(tmp_path: Path):
    (path,) = write_tiny_mixture(tmp_path / "tiny.gguf", "qwen3moe")
    with pytest.raises(EngineFailed, match="name a text file"):
        await calibrate(path, ExpertShape(8, 4, (0, 1, 2)), threads=1, text=tmp_path / "none.txt")


async def test_one_that_takes_too_long_is_ended(tmp_path: Path):
    (path,) = write_tiny_mixture(tmp_path / "tiny.gguf", "qwen3moe")
    with pytest.raises(EngineFailed, match="not done within 0 s"):
        await calibrate(path, ExpertShape(8, 4, (0, 1, 2)), threads=1, seconds_max=0.01)
