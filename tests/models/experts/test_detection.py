"""Which mixtures can be cut: told by the names of their tensors, with the reason where they cannot."""

from pathlib import Path

import pytest

from mesh_llm.core.errors import ModelDamaged, RequestRefused
from mesh_llm.core.experts import ExpertShape
from mesh_llm.models.experts.detection import ExpertBytes, detect, expert_bytes, notes
from mesh_llm.models.gguf.contents import Header, Value
from mesh_llm.models.gguf.tensors import STORAGE_TYPES, TensorInfo
from tests.experts.tiny_moe import TINY_MIXTURES, write_tiny_mixture
from tests.models.experts.cuts import headers
from tests.tiny_models import write_tiny_model

F32 = STORAGE_TYPES[0]
EXPERTS = ("ffn_gate_inp.weight", "ffn_up_exps.weight", "ffn_down_exps.weight")


def mixture(*others: str, rows: int = 8, architecture: str = "qwen3moe", **keys: Value) -> list[Header]:
    """Two layers of eight experts; `others` are further tensors of layer 1, with as many rows."""
    names = [f"blk.{layer}.{name}" for layer in (0, 1) for name in EXPERTS]
    names += [f"blk.1.{name}" for name in others]
    counts: dict[str, Value] = {"expert_count": 8, "expert_used_count": 2, **keys}
    metadata: dict[str, Value] = {f"{architecture}.{key}": value for key, value in counts.items()}
    tensors = (
        TensorInfo("token_embd.weight", (4, 10), F32, 0, 160),
        *(TensorInfo(name, (4, rows), F32, 0, 16 * rows) for name in names),
    )
    return [Header("m", 3, {"general.architecture": architecture, **metadata}, tensors, 32, 0, 0)]


@pytest.mark.parametrize("name", TINY_MIXTURES)
def test_a_mixture_has_the_shape_that_it_was_made_with(tmp_path: Path, name: str) -> None:
    made = TINY_MIXTURES[name]
    for tensors_per_file in (0, 8):
        files = write_tiny_mixture(tmp_path / "m.gguf", name, tensors_per_file=tensors_per_file)
        assert detect(headers(files)) == ExpertShape(
            made.experts, made.used, made.expert_layers, made.groups, made.groups_used
        )


def test_a_dense_model_has_no_shape(tmp_path: Path) -> None:
    parts = headers(write_tiny_model(tmp_path / "m.gguf", "llama"))
    assert detect(parts) is None
    assert expert_bytes(parts) == ExpertBytes(sum(part.weights_bytes for part in parts), 0)
    assert detect(mixture(expert_count=1, expert_used_count=1)) is None


def test_the_bytes_of_an_expert_are_its_rows_in_all_layers() -> None:
    assert expert_bytes(mixture("ffn_up_shexp.weight")) == ExpertBytes(160 + 128, 2 * 3 * 16)


@pytest.mark.parametrize(
    "name",
    [
        "ffn_gate_exps.weight",
        "ffn_gate_up_exps.weight",
        "ffn_down_exps.scale",
        "ffn_up_exps.input_scale",
        "ffn_gate_inp.bias",
        "exp_probs_b",
        "exp_probs_b.bias",
        "exp_probs_b_vl.bias",
    ],
)
def test_tensors_with_a_row_for_each_expert_are_counted_with_them(name: str) -> None:
    assert expert_bytes(mixture(name)) == ExpertBytes(160, 2 * 3 * 16 + 16)


@pytest.mark.parametrize(
    "name",
    [
        "ffn_gate_inp_shexp.weight",
        "ffn_down_shexp.weight",
        "ffn_norm_exps.weight",
        "attn_v_exps.weight",
        "ffn_gate_inp.scale",
        "ffn_routed_down.weight",
    ],
)
def test_names_that_only_begin_so_belong_to_the_trunk(name: str) -> None:
    assert expert_bytes(mixture(name)) == ExpertBytes(160 + 128, 2 * 3 * 16)


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("ffn_gate_tid2eid.weight", "look their experts up by the token"),
        ("ffn_up_chexps.weight", "groups of its experts share"),
        ("ffn_gate.3.weight", "a tensor for each expert"),
        ("ffn_hat_exps.weight", "is not known"),
        ("exp_hat.weight", "is not known"),
    ],
)
def test_what_is_counted_by_experts_otherwise_is_refused_with_the_reason(name: str, why: str) -> None:
    with pytest.raises(RequestRefused, match=why) as refused:
        detect(mixture(name))
    assert refused.value.code == "cannot_be_cut"


def test_a_quantised_bias_that_experts_share_a_block_of_is_refused() -> None:
    parts = mixture()
    odd = TensorInfo("blk.0.ffn_gate_inp.bias", (8,), STORAGE_TYPES[2], 0, 18)
    with pytest.raises(RequestRefused, match="experts share blocks"):
        detect([Header("m", 3, parts[0].metadata, (*parts[0].tensors, odd), 32, 0, 0)])


@pytest.mark.parametrize(
    ("keys", "rows"),
    [
        ({}, 7),
        ({"expert_used_count": 0}, 8),
        ({"expert_used_count": 9}, 8),
        ({"expert_group_count": 3, "expert_group_used_count": 1}, 8),
        ({"expert_group_count": 4, "expert_group_used_count": 4}, 8),
        ({"expert_group_count": 4}, 8),
        ({"expert_count": "eight"}, 8),
    ],
)
def test_a_header_that_contradicts_itself_is_damaged(keys: dict[str, Value], rows: int) -> None:
    with pytest.raises(ModelDamaged):
        detect(mixture(rows=rows, **keys))


@pytest.mark.parametrize(
    ("architecture", "keys", "has_note"),
    [
        ("olmoe", {}, True),
        ("qwen2moe", {}, True),
        ("deepseek", {}, True),
        ("deepseek2", {}, True),
        ("deepseek2", {"expert_weights_norm": True}, False),
        ("deepseek2", {"expert_gating_func": 2}, False),
        ("glm4moe", {"expert_gating_func": 1}, True),
        ("glm4moe", {}, False),
        ("qwen3moe", {}, False),
        ("gpt-oss", {}, False),
    ],
)
def test_it_is_told_where_kept_experts_weigh_more_than_before(
    architecture: str, keys: dict[str, Value], has_note: bool
) -> None:
    assert bool(notes(mixture(architecture=architecture, **keys))) == has_note
