"""What llama.cpp's tensors and keys say of experts, by their names. Data, with its source, and who reads it.

Source: llama.cpp b11549, src/llama-arch.cpp (names), src/models/*.cpp (`create_tensor` of each: whose slowest
axis is `n_expert`; the arguments of `build_moe_ffn`), `llama_model_base::load_hparams`. Names decide, not
architectures: a new one that calls its tensors as the others do is cut as they are.
"""

import re

from mesh_llm.models.gguf.keys import Keys

OF_EACH_EXPERT = re.compile(
    r"ffn_(gate|up|down|gate_up)_exps\.(weight|bias|scale|input_scale)"
    r"|ffn_gate_inp\.(weight|bias)"
    r"|exp_probs_b(_vl)?(\.bias)?"
)
"""A layer's tensors whose slowest axis counts experts: a cut has some rows of them, byte by byte."""

IN_EACH_LAYER = ("ffn_gate_inp.weight", "ffn_down_exps.weight")
"""Every architecture has a router and these wherever it has experts; the others differ."""

EXPERTS_MAX = 1024
"""llama-hparams.h: `LLAMA_MAX_EXPERTS`, which `load_hparams` asserts: more end the process."""

LEADING_DENSE_UNREAD = frozenset({"bailingmoe"})
"""Those that load `leading_dense_block_count` and give every layer experts whatever it says."""

OF_ALL_EXPERTS = re.compile(r"ffn_norm_exps\.weight|attn_v_exps\.weight|ffn_gate_inp\.scale|.*shexp.*")
"""Those whose names say so and do not: arctic's norm before its experts, the values of k2-horizon, which
have a number of their own, gemma4's scale of what the router sees, and shared experts."""

SPEAKS_OF_EXPERTS = re.compile(r"(^|_)(exps?|chexps|gate_inp|tid2eid)(_|\.|$)")
"""What is called so and is not known above may be counted by experts in a way that nobody has read."""

NOT_CUT = {
    re.compile(r"ffn_gate_tid2eid\..*"): "some of its layers look their experts up by the token",
    re.compile(r"ffn_\w+_chexps\..*"): "groups of its experts share a further one",
    re.compile(r"ffn_(gate|up|down)\.\d+\.weight"): "it has a tensor for each expert, an old form that the "
    "engine does not load",
}
"""deepseek4, grovemoe, and conversions from before April 2024."""

SOFTMAX = 1
"""llama-hparams.h: `LLAMA_EXPERT_GATING_FUNC_TYPE_SOFTMAX`."""

NEVER_RENORMALISED = frozenset({"deepseek", "jamba", "llada-moe", "nomic-bert-moe", "olmoe", "qwen2moe"})
"""`build_moe_ffn(..., norm_w = false, ..., SOFTMAX)`."""

RENORMALISED_IF_TOLD = frozenset(
    {
        "afmoe",
        "bailingmoe",
        "bailingmoe2",
        "bailingmoe3",
        "cohere2moe",
        "deepseek2",
        "deepseek2-ocr",
        "deepseek32",
        "dots1",
        "dots3note",
        "exaone-moe",
        "glm-dsa",
        "glm4moe",
        "glm5-next",
        "hy_v3",
        "hy_v4",
        "k2-horizon",
        "kimi-k3",
        "laguna",
        "minimax-m3",
        "mistral4",
        "step35",
    }
)
"""`norm_w = hparams.expert_weights_norm`, and the gating function as the header says."""

SOFTMAX_UNLESS_TOLD = frozenset({"bailingmoe", "deepseek2", "deepseek2-ocr", "mistral4"})
"""What those take for the gating function where the header says none (or 0)."""


def swells(keys: Keys) -> bool:
    """Whether the experts that are left weigh more in a cut than in the model: weights are shares of all
    experts there, and nothing makes them sum to 1 again."""
    if keys.architecture in NEVER_RENORMALISED:
        return True
    gating = keys.number("expert_gating_func")
    is_softmax = gating == SOFTMAX or (gating == 0 and keys.architecture in SOFTMAX_UNLESS_TOLD)
    is_told = keys.number("expert_weights_norm") > 0
    return keys.architecture in RENORMALISED_IF_TOLD and is_softmax and not is_told


def why_not_cut(tensor: str, rest: str) -> str | None:
    """Of one tensor of a layer, named `blk.3.` and `rest`: why a model that has it cannot be cut."""
    for pattern, why in NOT_CUT.items():
        if pattern.fullmatch(rest):
            return f"{why} (`{tensor}`)"
    is_known = OF_EACH_EXPERT.fullmatch(rest) or OF_ALL_EXPERTS.fullmatch(rest)
    if SPEAKS_OF_EXPERTS.search(rest) and not is_known:
        return f"what `{tensor}` has of each expert is not known"
    return None
