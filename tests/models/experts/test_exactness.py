"""A cut computes what the whole model does when the missing experts are never chosen.

Differences of logits are compared with the largest logit. They are 0.0 where each row of the router is
multiplied by the same kernel in both, which ggml takes for four rows at once, and where weights are made of
the chosen alone. Elsewhere the last bits of a router's product, or of a softmax over fewer, are rounded
otherwise (2.5e-7 was seen); what is stored in 8 or 16 bits on the way (quantised experts' input, keys and
values of the next layer) can make a step of 1e-3 of such a bit: so these have one layer and F32 experts.
"""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import gguf
import numpy as np
import pytest

from mesh_llm.core.experts import Kept
from tests.engine.llama import computing
from tests.engine.llama.computing import Computing
from tests.engine.stage.chains import CONTEXT
from tests.experts.tiny_moe import TINY_MIXTURES, write_tiny_mixture
from tests.models.experts.cuts import cut_file, drawn_kept, dropped, headers
from tests.tiny_models import write_tiny_model

pytestmark = pytest.mark.real

TOKENS = [token % 250 + 3 for token in range(7, 7 + 31 * 24, 31)]
NEVER = -1e4
"""A router's logit that softmax makes 0 of."""
CONSTANT = 8.0


@pytest.fixture(scope="module")
def child() -> Iterator[Computing]:
    with computing.started() as computing_child:
        yield computing_child


def logits(child: Computing, path: Path) -> np.ndarray:
    child("load", path, CONTEXT)
    found = child("decode", [0] * len(TOKENS), list(range(len(TOKENS))), tokens=TOKENS)
    child("unload")
    return found


def difference(one: np.ndarray, other: np.ndarray) -> float:
    return float(np.abs(one - other).max() / np.abs(one).max())


@pytest.mark.parametrize(
    ("name", "count"),
    [("deepseek2 with groups", 12), ("deepseek2", 4), ("gpt-oss", 4)],
)
def test_a_cut_is_the_model_with_the_other_experts_masked(
    tmp_path: Path, child: Computing, name: str, count: int
) -> None:
    files = write_tiny_mixture(tmp_path / "full.gguf", name)
    kept = drawn_kept(headers(files), count)
    never = dropped(kept, TINY_MIXTURES[name].experts)
    (masked,) = write_tiny_mixture(tmp_path / "masked.gguf", name, masked=never)
    whole, expected = logits(child, files[0]), logits(child, masked)
    found = logits(child, cut_file(files, kept, tmp_path / "cut.gguf"))
    assert difference(whole, expected) > 0.05
    assert difference(expected, found) == 0.0


@pytest.mark.parametrize("name", ["qwen3moe", "qwen3moe without its width", "olmoe"])
def test_without_a_bias_a_router_that_never_chooses_the_others_is_the_same(
    tmp_path: Path, child: Computing, name: str
) -> None:
    """One channel of the residual stream is made constant, so that a row of the router can always say no."""
    (full,), (masked,) = (one_layer(tmp_path / f"{each}.gguf", name) for each in ("full", "masked"))
    kept = drawn_kept(headers([full]), 5)
    with_constant_channel(full)
    with_constant_channel(masked, kept)
    whole, expected = logits(child, full), logits(child, masked)
    found = logits(child, cut_file([full], kept, tmp_path / "cut.gguf"))
    assert difference(whole, expected) > 0.05
    assert difference(expected, found) <= 1e-5


@pytest.mark.parametrize("name", ["qwen3moe without its width", "gpt-oss"])
def test_a_cut_of_fewer_experts_than_a_token_uses_loads(tmp_path: Path, child: Computing, name: str) -> None:
    files = write_tiny_mixture(tmp_path / "full.gguf", name)
    found = logits(child, cut_file(files, drawn_kept(headers(files), 2), tmp_path / "cut.gguf"))
    assert np.isfinite(found).all()


def test_a_cut_of_all_experts_is_the_model(tmp_path: Path, child: Computing) -> None:
    files = write_tiny_mixture(tmp_path / "full.gguf", "deepseek2 with groups", tensors_per_file=9)
    found = logits(child, cut_file(files, drawn_kept(headers(files), 16), tmp_path / "cut.gguf"))
    assert np.array_equal(found, logits(child, files[0]))


def one_layer(path: Path, name: str) -> list[Path]:
    mixture = TINY_MIXTURES[name]
    tiny = replace(mixture.tiny, experts_type=gguf.GGMLQuantizationType.F32)
    return write_tiny_model(path, mixture.architecture, layers=1, tiny=tiny)


def with_constant_channel(path: Path, kept: Kept | None = None) -> None:
    """Embeddings begin with CONSTANT, no layer adds to it, and experts that are not kept get NEVER by it."""
    reader = gguf.GGUFReader(path, "r+")
    for tensor in reader.tensors:
        weights = gguf.quants.dequantize(tensor.data, tensor.tensor_type).copy()
        layer, _, name = tensor.name.removeprefix("blk.").partition(".")
        match name:
            case "weight" if layer == "token_embd":
                weights[:, 0] = CONSTANT
            case "attn_output.weight":
                weights[0] = 0
            case "ffn_down_exps.weight":
                weights[:, 0] = 0
            case "ffn_gate_inp.weight":
                weights[:, 0] = 0
                if kept is not None:
                    missing = dropped(kept, len(weights))[int(layer)]
                    weights[missing] = 0
                    weights[missing, 0] = NEVER
            case _:
                continue
        tensor.data[:] = gguf.quants.quantize(weights, tensor.tensor_type)
    reader.data.flush()
