"""Which mixtures can be cut: told by the names of their tensors, with the reason where they cannot."""

import contextlib
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesh_llm.core.errors import ModelDamaged, RequestRefused
from mesh_llm.core.experts import ExpertShape
from mesh_llm.models.experts.detection import ExpertBytes, detect, expert_bytes, notes
from mesh_llm.models.experts.layout import cut_layout
from mesh_llm.models.gguf.contents import Header, Value
from mesh_llm.models.gguf.tensors import STORAGE_TYPES, TensorInfo
from tests.experts.tiny_moe import TINY_MIXTURES, write_tiny_mixture
from tests.models.experts.cuts import drawn_kept, headers
from tests.tiny_models import write_tiny_model

F32 = STORAGE_TYPES[0]
EXPERTS = ("ffn_gate_inp.weight", "ffn_up_exps.weight", "ffn_down_exps.weight")


def mixture(*others: str, rows: int = 8, architecture: str = "qwen3moe", **keys: Value) -> list[Header]:
    """Two layers of eight experts; `others` are further tensors of layer 1, with as many rows."""
    names = [f"blk.{layer}.{name}" for layer in (0, 1) for name in EXPERTS]
    names += [f"blk.1.{name}" for name in others]
    counts: dict[str, Value] = {"block_count": 2, "expert_count": 8, "expert_used_count": 2, **keys}
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


def test_a_header_that_counts_experts_of_which_there_are_none_is_no_mixture(tmp_path: Path) -> None:
    (part,) = headers(write_tiny_model(tmp_path / "m.gguf", "llama"))
    counts: dict[str, Value] = {"llama.expert_count": 8, "llama.expert_used_count": 2}
    assert detect([replace(part, metadata={**part.metadata, **counts})]) is None


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
    ("keys", "rows", "why"),
    [
        ({}, 7, "rows of 7 experts, the model has 8"),
        ({"expert_count": 0}, 8, "in 2 layers, its header counts 0"),
        ({"expert_count": 1, "expert_used_count": 1}, 8, "in 2 layers, its header counts 1"),
        ({"expert_count": 2048}, 2048, "the engine takes 1024"),
        ({"expert_used_count": 0}, 8, "uses 0 of 8 experts"),
        ({"expert_used_count": 9}, 8, "uses 9 of 8 experts"),
        ({"expert_used_count": (2, 9)}, 8, "uses 9 of 8 experts"),
        ({"expert_group_count": 3, "expert_group_used_count": 1}, 8, "1 of 3 groups"),
        ({"expert_group_count": 4, "expert_group_used_count": 4}, 8, "4 of 4 groups"),
        ({"expert_group_count": 8, "expert_group_used_count": 2}, 8, "2 of 8 groups"),
        ({"expert_group_count": 4}, 8, "0 of 4 groups"),
        (
            {"expert_group_count": 4, "expert_group_used_count": 1, "expert_used_count": 3},
            8,
            "uses 3 of 8 experts in 1 of 4 groups",
        ),
        ({"expert_count": "eight"}, 8, "should be a number"),
        ({"expert_count": -8}, 8, "should be a number"),
        ({"block_count": 1}, 8, "experts in layer 1, its header counts 1 layers"),
        ({"leading_dense_block_count": 1}, 8, "the first 1 layers have none"),
    ],
)
def test_a_header_that_contradicts_its_tensors_is_damaged_with_the_reason(
    keys: dict[str, Value], rows: int, why: str
) -> None:
    with pytest.raises(ModelDamaged, match=rf"{why}.*Fetch the model again"):
        detect(mixture(rows=rows, **keys))


def test_leading_dense_layers_are_not_asked_for_where_the_engine_does_not() -> None:
    assert detect(mixture(architecture="bailingmoe", leading_dense_block_count=1)) is not None


def test_layers_with_numbers_of_experts_of_their_own_are_refused() -> None:
    with pytest.raises(RequestRefused, match="each layer a number of experts"):
        detect(mixture(expert_count=(8, 4)))


@pytest.mark.parametrize("name", EXPERTS)
def test_a_layer_that_lacks_what_each_with_experts_has_is_damaged(name: str) -> None:
    (part,) = mixture()
    rest = tuple(tensor for tensor in part.tensors if tensor.name != f"blk.1.{name}")
    if name == "ffn_up_exps.weight":  # some architectures have it fused
        assert detect([replace(part, tensors=rest)]) is not None
        return
    with pytest.raises(ModelDamaged, match=f"layer 1 has some tensors of experts and lacks `{name}`"):
        detect([replace(part, tensors=rest)])


def test_a_router_without_experts_is_damaged() -> None:
    (part,) = mixture()
    rest = tuple(tensor for tensor in part.tensors if not tensor.name.startswith("blk.1.ffn_up"))
    rest = tuple(tensor for tensor in rest if not tensor.name.startswith("blk.1.ffn_down"))
    with pytest.raises(ModelDamaged, match="layer 1 has some tensors of experts and lacks `ffn_down_exps"):
        detect([replace(part, tensors=rest)])


numbers = st.sampled_from([0, 1, 2, 3, 4, 8, 9, 1024, 2**31])
values = st.one_of(numbers, st.lists(numbers, max_size=3).map(tuple), st.sampled_from([-1, "8", 0.5, True]))
tensor_names = st.sampled_from([*EXPERTS, "exp_probs_b.bias", "ffn_gate_exps.weight", "attn_q.weight"])


@given(
    st.dictionaries(
        st.sampled_from(
            [
                "block_count",
                "expert_count",
                "expert_used_count",
                "expert_group_count",
                "expert_group_used_count",
                "expert_feed_forward_length",
                "leading_dense_block_count",
            ]
        ),
        values,
        max_size=3,
    ),
    st.lists(tensor_names, max_size=3),
    st.sampled_from([8, 8, 8, 0, 1, 4]),
    st.integers(0, 7),
)
def test_whatever_a_header_says_it_is_cut_or_refused(
    keys: dict[str, Value], dropped: list[str], rows: int, left_out: int
) -> None:
    """Nothing else comes of it: a shape that is given is one that can be laid out."""
    (part,) = mixture("exp_probs_b.bias", rows=rows, **keys)
    gone = {f"blk.{left_out % 2}.{name}" for name in dropped}
    parts = [replace(part, tensors=tuple(each for each in part.tensors if each.name not in gone))]
    with contextlib.suppress(ModelDamaged, RequestRefused):
        shape = detect(parts)
        if shape is None:
            return
        weights = expert_bytes(parts)
        layout = cut_layout(parts, drawn_kept(parts, shape.fewest_possible))
        assert layout.assigned_bytes == weights.trunk + shape.fewest_possible * weights.each


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
