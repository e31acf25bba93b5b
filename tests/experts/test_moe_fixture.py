"""The mixture made of SmolLM2 is one that llama.cpp takes for one, that speaks English, and that can be cut
by layers as any other model."""

import math
import re
from collections.abc import Iterator

import numpy as np
import pytest

from mesh_llm.models.gguf.header import read_file_header
from tests.engine.llama import computing
from tests.engine.llama.computing import Computing
from tests.engine.stage.chains import CONTEXT, chain
from tests.experts import english
from tests.experts.moe_fixture import EXPERTS, USED, mixture_path

pytestmark = pytest.mark.real

PROMPT = "The Python programming language"
NEW_TOKENS = 40
ENGLISH_SHARE_MIN = 0.8
"""Of words that the reference has too; of drawn tokens it is under 0.4."""
RUNS_OF_EACH, RUN_TOKENS = 3, 128
PERPLEXITY_RATIO_MAX = 1.75
"""Of the dense model's: seen is 1.55 to 1.66, by the text."""


@pytest.fixture(scope="module")
def dense(smollm2):
    with computing.started() as child:
        child("load", smollm2, CONTEXT)
        yield child


@pytest.fixture(scope="module")
def mixture(moe_model):
    with computing.started() as child:
        child("load", moe_model, CONTEXT)
        yield child


def test_its_header_tells_of_its_experts(moe_model):
    header = read_file_header(moe_model)
    assert header.metadata["general.architecture"] == "llama"
    assert (header.metadata["llama.expert_count"], header.metadata["llama.expert_used_count"]) == (
        EXPERTS,
        USED,
    )


def test_another_source_is_another_mixture(tmp_path):
    (tmp_path / "one").write_bytes(b"1")
    (tmp_path / "two").write_bytes(b"2")
    assert mixture_path(tmp_path / "one", tmp_path) != mixture_path(tmp_path / "two", tmp_path)


def test_it_writes_english(mixture):
    text = greedy_text(mixture, PROMPT, NEW_TOKENS)
    words = re.findall("[a-z]+", text.lower())
    known = set(re.findall("[a-z]+", english.reference(english.Half.HELD_OUT).lower()))
    assert len(words) > NEW_TOKENS / 3
    assert sum(word in known for word in words) / len(words) > ENGLISH_SHARE_MIN, text


def test_it_reads_english_nearly_as_well_as_the_dense_model(dense, mixture):
    runs = list(held_out_runs(mixture))
    ratio = perplexity(mixture, runs) / perplexity(dense, runs)
    assert 1.1 < ratio < PERPLEXITY_RATIO_MAX


async def test_in_stages_it_equals_the_whole(moe_model, mixture, tmp_path):
    prompt = mixture("tokens", PROMPT)
    mixture("memory", "clear")
    async with chain(moe_model, (12,), tmp_path) as stages:
        expected, tokens, start = np.empty(0), prompt, 0
        for _ in range(8):
            positions = list(range(start, start + len(tokens)))
            expected = mixture("decode", [0] * len(tokens), positions, tokens=tokens)
            got = await stages.decode([0] * len(tokens), positions, tokens)
            assert np.abs(expected - got).max() == 0.0
            start += len(tokens)
            tokens = [int(expected[-1].argmax())]


def greedy_text(model: Computing, prompt: str, count: int) -> str:
    model("memory", "clear")
    tokens = model("tokens", prompt)
    start, said = 0, list[int]()
    while len(said) < count:
        positions = list(range(start, start + len(tokens)))
        logits = model("decode", [0] * len(tokens), positions, tokens=tokens)
        start += len(tokens)
        tokens = [int(logits[-1].argmax())]
        said += tokens
    return model("text", said)


def held_out_runs(model: Computing) -> Iterator[list[int]]:
    """For both models, whose tokens are the same."""
    for kind in (english.reference, english.docstrings):
        yield from english.chunks(model("tokens", kind(english.Half.HELD_OUT)), RUNS_OF_EACH, RUN_TOKENS)


def perplexity(model: Computing, runs: list[list[int]]) -> float:
    """Of the second half of each run."""
    losses = [loss for run in runs for loss in model("surprises", run)[RUN_TOKENS // 2 :]]
    return math.exp(sum(losses) / len(losses))
