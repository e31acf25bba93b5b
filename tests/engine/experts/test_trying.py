from dataclasses import replace
from pathlib import Path

import pytest

from mesh_llm.core.errors import EngineFailed
from mesh_llm.engine.experts.trying import try_out
from tests.experts.tiny_moe import TINY_MIXTURES, write_tiny_mixture
from tests.tiny_models import TinyModel, write_tiny_model

pytestmark = pytest.mark.real


async def test_what_can_be_served_passes(tmp_path: Path):
    (path,) = write_tiny_mixture(tmp_path / "tiny.gguf", "olmoe")
    await try_out(path)


async def test_a_file_that_makes_the_engine_abort_is_refused_with_its_reason(tmp_path: Path):
    """The graph has nodes for each expert used, and its size a bound that does not know of them."""
    tiny = TINY_MIXTURES["qwen3moe"].tiny
    sizes = {
        name: size for name, size in tiny.layer(0).items() if "_exps" not in name and "gate_inp" not in name
    }
    many = {
        "ffn_gate_inp.weight": (tiny.layer(0)["ffn_gate_inp.weight"][0], 512),
        **{name: (*size[:2], 512) for name, size in tiny.layer(0).items() if "_exps" in name},
    }
    keys = {**tiny.keys, "expert_count": 512, "expert_used_count": 512}
    model = replace(tiny, layer=lambda _: sizes | many, keys=keys)
    assert isinstance(model, TinyModel)
    (path,) = write_tiny_model(tmp_path / "many.gguf", "qwen3moe", tiny=model)
    with pytest.raises(EngineFailed, match=r"many\.gguf cannot be served: .*GGML_ASSERT"):
        await try_out(path)


async def test_a_file_that_is_cut_off_is_refused(tmp_path: Path):
    (path,) = write_tiny_mixture(tmp_path / "tiny.gguf", "olmoe")
    path.write_bytes(path.read_bytes()[:-10_000])
    with pytest.raises(EngineFailed, match=r"tiny\.gguf cannot be served: .*cannot be loaded"):
        await try_out(path)


async def test_one_that_computes_no_numbers_is_refused(tmp_path: Path):
    (path,) = write_tiny_mixture(tmp_path / "tiny.gguf", "olmoe")
    data = path.read_bytes()
    path.write_bytes(data[:-8192] + b"\x00\x00\xc0\x7f" * 2048)  # not a number
    with pytest.raises(EngineFailed, match="no numbers"):
        await try_out(path)
