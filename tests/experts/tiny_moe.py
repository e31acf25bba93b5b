"""Random mixtures of experts of a few hundred kilobytes, for what differs between architectures: groups,
selection biases, fused and biased tensors, shared experts, leading dense layers, widths not in the header.

`masked`: the same weights with a selection bias that keeps some experts from ever being chosen. What such a
model computes is what a cut without those experts has to compute, which makes it an oracle.
"""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gguf

from tests.tiny_models import (
    HEAD_LENGTH,
    HEADS,
    TINY_MODELS,
    WIDTH,
    WINDOW,
    Tensors,
    TinyModel,
    attention,
    write_tiny_model,
)

EXPERT_WIDTH = 32
EXPERTS = 8
USED = 4
GROUPED_EXPERTS = 16
GROUPS = 4
GROUPS_USED = 2
OSS_USED = 3
"""Not half of the experts, so that the two are not mistaken for one another."""


@dataclass(frozen=True)
class TinyMixture:
    """How one is made, and what it holds."""

    architecture: str
    tiny: TinyModel
    experts: int
    used: int
    expert_layers: tuple[int, ...]
    groups: int = 1
    groups_used: int = 1
    selection_bias: str | None = None
    """The tensor, named without `blk.n.`, that decides who is chosen."""


def _experts(count: int, *, fused: bool = False) -> Tensors:
    tensors: Tensors = {
        "ffn_gate_inp.weight": (WIDTH, count),
        "ffn_down_exps.weight": (EXPERT_WIDTH, WIDTH, count),
    }
    if fused:
        return tensors | {"ffn_gate_up_exps.weight": (WIDTH, 2 * EXPERT_WIDTH, count)}
    return tensors | {
        "ffn_gate_exps.weight": (WIDTH, EXPERT_WIDTH, count),
        "ffn_up_exps.weight": (WIDTH, EXPERT_WIDTH, count),
    }


def _counts(count: int, used: int) -> dict[str, Any]:
    return {
        "expert_count": count,
        "expert_used_count": used,
        "expert_feed_forward_length": EXPERT_WIDTH,
    }


def _qwen3moe(_: int) -> Tensors:
    return attention(normed=True) | {"ffn_norm.weight": (WIDTH,)} | _experts(EXPERTS)


def _olmoe(_: int) -> Tensors:
    norms: Tensors = {"attn_q_norm.weight": (WIDTH,), "attn_k_norm.weight": (WIDTH,)}
    whole: Tensors = {
        "attn_k.weight": (WIDTH, HEADS * HEAD_LENGTH),
        "attn_v.weight": (WIDTH, HEADS * HEAD_LENGTH),
    }
    return attention() | whole | norms | {"ffn_norm.weight": (WIDTH,)} | _experts(EXPERTS)


def _gpt_oss(layer: int) -> Tensors:
    biases: Tensors = {
        "ffn_gate_inp.bias": (EXPERTS,),
        "ffn_gate_exps.bias": (EXPERT_WIDTH, EXPERTS),
        "ffn_up_exps.bias": (EXPERT_WIDTH, EXPERTS),
        "ffn_down_exps.bias": (WIDTH, EXPERTS),
    }
    return TINY_MODELS["gpt-oss"].layer(layer) | _experts(EXPERTS) | biases


def _deepseek2(count: int, *, fused: bool) -> Callable[[int], Tensors]:
    def layer(number: int) -> Tensors:
        if number == 0:
            return TINY_MODELS["deepseek2"].layer(0)
        apart = {
            name: sizes for name, sizes in TINY_MODELS["deepseek2"].layer(2).items() if "_exps." not in name
        }
        return apart | _experts(count, fused=fused) | {"exp_probs_b.bias": (count,)}

    return layer


def _deepseek2_keys(count: int, **others: int) -> dict[str, Any]:
    return {
        **TINY_MODELS["deepseek2"].keys,
        **_counts(count, USED),
        "leading_dense_block_count": 1,
        **others,
    }


TINY_MIXTURES: dict[str, TinyMixture] = {
    "qwen3moe": TinyMixture(
        "qwen3moe", TinyModel(3, _qwen3moe, _counts(EXPERTS, USED)), EXPERTS, USED, (0, 1, 2)
    ),
    "qwen3moe without its width": TinyMixture(
        "qwen3moe",
        TinyModel(
            2,
            _qwen3moe,
            _counts(EXPERTS, USED)
            | {"expert_feed_forward_length": None, "feed_forward_length": EXPERT_WIDTH * USED},
        ),
        EXPERTS,
        USED,
        (0, 1),
    ),
    "olmoe": TinyMixture(
        "olmoe",
        TinyModel(
            2,
            _olmoe,
            _counts(EXPERTS, USED)
            | {
                "expert_feed_forward_length": None,
                "feed_forward_length": EXPERT_WIDTH,
                "attention.head_count_kv": HEADS,
            },
        ),
        EXPERTS,
        USED,
        (0, 1),
    ),
    "gpt-oss": TinyMixture(
        "gpt-oss",
        TinyModel(
            2,
            _gpt_oss,
            _counts(EXPERTS, OSS_USED) | {"attention.sliding_window": WINDOW},
            experts_type=gguf.GGMLQuantizationType.MXFP4,
        ),
        EXPERTS,
        OSS_USED,
        (0, 1),
        selection_bias="ffn_gate_inp.bias",
    ),
    "deepseek2": TinyMixture(
        "deepseek2",
        TinyModel(3, _deepseek2(EXPERTS, fused=False), _deepseek2_keys(EXPERTS)),
        EXPERTS,
        USED,
        (1, 2),
        selection_bias="exp_probs_b.bias",
    ),
    "deepseek2 with groups": TinyMixture(
        "deepseek2",
        TinyModel(
            3,
            _deepseek2(GROUPED_EXPERTS, fused=True),
            _deepseek2_keys(GROUPED_EXPERTS, expert_group_count=GROUPS, expert_group_used_count=GROUPS_USED),
        ),
        GROUPED_EXPERTS,
        USED,
        (1, 2),
        GROUPS,
        GROUPS_USED,
        selection_bias="exp_probs_b.bias",
    ),
}
"""By what is special about each."""


def write_tiny_mixture(
    path: Path,
    name: str,
    *,
    seed: int = 0,
    tensors_per_file: int = 0,
    masked: Mapping[int, Collection[int]] | None = None,
) -> list[Path]:
    """The files of the mixture called `name` in TINY_MIXTURES: `path`, or parts named after it. `masked`: by
    layer, the experts that are never chosen; ValueError where the architecture has no bias to say it with."""
    mixture = TINY_MIXTURES[name]
    if masked and mixture.selection_bias is None:
        raise ValueError(f"{name} has no bias of selection, so none of its experts can be masked")
    never = {f"blk.{layer}.{mixture.selection_bias}": ids for layer, ids in (masked or {}).items()}
    return write_tiny_model(
        path,
        mixture.architecture,
        seed=seed,
        tensors_per_file=tensors_per_file,
        tiny=mixture.tiny,
        never=never,
    )
