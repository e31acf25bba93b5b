"""Tiny random models of further architectures that can be cut: to hold the table against llama.cpp."""

from typing import Any

from tests.tiny_models import (
    EXPERT_FEED_FORWARD,
    EXPERT_KEYS,
    EXPERTS,
    FEED_FORWARD,
    HEAD_LENGTH,
    HEADS,
    KV_HEADS,
    POST_NORMS,
    TINY_MODELS,
    VOCABULARY,
    WIDTH,
    WINDOW,
    Tensors,
    TinyModel,
    attention,
    experts,
    feed_forward,
)

EPSILON: dict[str, Any] = {"attention.layer_norm_epsilon": 1e-5, "attention.layer_norm_rms_epsilon": None}
OUTPUT_BIAS: Tensors = {"output_norm.bias": (WIDTH,)}
NORM: Tensors = {"ffn_norm.weight": (WIDTH,)}


def shared_experts() -> Tensors:
    return {
        "ffn_gate_shexp.weight": (WIDTH, EXPERT_FEED_FORWARD),
        "ffn_up_shexp.weight": (WIDTH, EXPERT_FEED_FORWARD),
        "ffn_down_shexp.weight": (EXPERT_FEED_FORWARD, WIDTH),
    }


def without(tensors: Tensors, *names: str) -> Tensors:
    return {name: sizes for name, sizes in tensors.items() if name not in names}


def _plain(_: int) -> Tensors:
    return attention() | feed_forward()


def _normed(_: int) -> Tensors:
    return attention(normed=True) | feed_forward()


def _parallel(_: int) -> Tensors:
    return attention() | without(feed_forward(), "ffn_norm.weight")


def _olmo2(_: int) -> Tensors:
    norms: Tensors = {"attn_q_norm.weight": (WIDTH,), "attn_k_norm.weight": (KV_HEADS * HEAD_LENGTH,)}
    body = without(attention() | feed_forward(), "attn_norm.weight", "ffn_norm.weight")
    return body | norms | POST_NORMS


def _exaone4(_: int) -> Tensors:
    body = attention(normed=True) | feed_forward()
    return without(body, "attn_norm.weight", "ffn_norm.weight") | POST_NORMS


def _starcoder2(_: int) -> Tensors:
    biases: Tensors = {
        "attn_norm.bias": (WIDTH,),
        "attn_output.bias": (WIDTH,),
        "ffn_norm.bias": (WIDTH,),
        "ffn_up.bias": (FEED_FORWARD,),
        "ffn_down.bias": (WIDTH,),
    }
    return attention(biased=True) | without(feed_forward(), "ffn_gate.weight") | biases


def _stablelm(_: int) -> Tensors:
    return attention() | feed_forward() | {"attn_norm.bias": (WIDTH,), "ffn_norm.bias": (WIDTH,)}


def _falcon(_: int) -> Tensors:
    return {
        "attn_norm.weight": (WIDTH,),
        "attn_norm.bias": (WIDTH,),
        "attn_norm_2.weight": (WIDTH,),
        "attn_norm_2.bias": (WIDTH,),
        "attn_qkv.weight": (WIDTH, WIDTH + 2 * KV_HEADS * HEAD_LENGTH),
        "attn_output.weight": (WIDTH, WIDTH),
        "ffn_up.weight": (WIDTH, FEED_FORWARD),
        "ffn_down.weight": (FEED_FORWARD, WIDTH),
    }


def _seed_oss(_: int) -> Tensors:
    body = without(feed_forward(), "ffn_norm.weight")
    return attention(biased=True) | body | {"post_attention_norm.weight": (WIDTH,)}


def _apertus(_: int) -> Tensors:
    return attention(normed=True) | without(feed_forward(), "ffn_gate.weight")


def _arcee(_: int) -> Tensors:
    return attention() | without(feed_forward(), "ffn_gate.weight")


def _qwen2moe(_: int) -> Tensors:
    gate: Tensors = {"ffn_gate_inp_shexp.weight": (WIDTH,)}
    return attention(biased=True) | NORM | experts() | shared_experts() | gate


def _granitemoe(_: int) -> Tensors:
    return attention() | NORM | experts()


def _glm4moe(layer: int) -> Tensors:
    body = attention(biased=True) | {"post_attention_norm.weight": (WIDTH,)}
    if layer < 2:
        return body | without(feed_forward(), "ffn_norm.weight")
    return body | experts() | shared_experts() | {"exp_probs_b.bias": (EXPERTS,)}


QUERY = HEADS * HEAD_LENGTH
KEY = KV_HEADS * HEAD_LENGTH
ALL_HEADS: dict[str, Any] = {"attention.head_count_kv": HEADS}
SHARED: dict[str, Any] = EXPERT_KEYS | {"expert_shared_count": 1, "expert_weights_scale": 1.5}
LEADING: dict[str, Any] = SHARED | {"leading_dense_block_count": 2}
FUSED: Tensors = {"attn_norm.weight": (WIDTH,), "attn_output.weight": (QUERY, WIDTH)}
EXPERTS_WIDE: dict[str, Any] = EXPERT_KEYS | {"feed_forward_length": EXPERT_FEED_FORWARD}


def all_heads(*, normed: bool = False) -> Tensors:
    """Attention with as many heads of keys as of queries."""
    return attention(normed=normed) | {"attn_k.weight": (WIDTH, QUERY), "attn_v.weight": (WIDTH, QUERY)}


def _leading(body: Tensors, layer: int) -> Tensors:
    return body | (feed_forward() if layer < 2 else NORM | experts() | shared_experts())


def _bailingmoe(_: int) -> Tensors:
    return attention() | NORM | experts() | shared_experts()


def _bailingmoe2(layer: int) -> Tensors:
    norms: Tensors = {"attn_q_norm.weight": (HEAD_LENGTH,), "attn_k_norm.weight": (HEAD_LENGTH,)}
    return _leading(FUSED | {"attn_qkv.weight": (WIDTH, QUERY + 2 * KEY)} | norms, layer)


def _chatglm(_: int) -> Tensors:
    body = without(attention(biased=True) | feed_forward(), "ffn_gate.weight")
    return body | {"ffn_up.weight": (WIDTH, 2 * FEED_FORWARD)}


def _dbrx(_: int) -> Tensors:
    qkv: Tensors = {"attn_qkv.weight": (WIDTH, QUERY + 2 * KEY), "attn_output_norm.weight": (WIDTH,)}
    return FUSED | qkv | experts()


def _deepseek(layer: int) -> Tensors:
    return _leading(attention(), layer)


def _dots1(layer: int) -> Tensors:
    return _leading(all_heads(normed=True), layer)


def _hunyuan_moe(_: int) -> Tensors:
    return attention(normed=True) | NORM | experts() | shared_experts()


def _minimax_m2(_: int) -> Tensors:
    norms: Tensors = {"attn_q_norm.weight": (QUERY,), "attn_k_norm.weight": (KEY,)}
    return attention() | norms | NORM | experts() | {"exp_probs_b.bias": (EXPERTS,)}


def _nemotron(_: int) -> Tensors:
    biases: Tensors = {"attn_norm.bias": (WIDTH,), "ffn_norm.bias": (WIDTH,)}
    return attention() | without(feed_forward(), "ffn_gate.weight") | biases


def _olmoe(_: int) -> Tensors:
    norms: Tensors = {"attn_q_norm.weight": (WIDTH,), "attn_k_norm.weight": (WIDTH,)}
    return all_heads() | norms | NORM | experts()


def _phimoe(_: int) -> Tensors:
    biases: Tensors = {"attn_norm.bias": (WIDTH,), "attn_output.bias": (WIDTH,), "ffn_norm.bias": (WIDTH,)}
    return attention(biased=True) | NORM | experts() | biases


def _qwen(_: int) -> Tensors:
    qkv: Tensors = {"attn_qkv.weight": (WIDTH, 3 * WIDTH), "attn_qkv.bias": (3 * WIDTH,)}
    return FUSED | qkv | feed_forward()


GRANITE: dict[str, Any] = {
    "embedding_scale": 12.0,
    "residual_scale": 0.22,
    "logit_scale": 8.0,
    "attention.scale": 0.015625,
}

MORE_TINY_MODELS: dict[str, TinyModel] = {
    "apertus": TinyModel(
        6,
        _apertus,
        {
            "xielu.alpha_n": [0.5, 0.6, 0.7, 0.8, 0.9, 1.0],
            "xielu.alpha_p": [1.5, 1.4, 1.3, 1.2, 1.1, 1.0],
            "xielu.beta": [0.5, 0.4, 0.3, 0.2, 0.1, 0.6],
            "xielu.eps": [-1e-6, -2e-6, -3e-6, -4e-6, -5e-6, -6e-6],
        },
    ),
    "arcee": TinyModel(6, _arcee),
    "bailingmoe": TinyModel(6, _bailingmoe, SHARED | {"leading_dense_block_count": 0}),
    "bailingmoe2": TinyModel(6, _bailingmoe2, LEADING | {"expert_gating_func": 2}),
    "chatglm": TinyModel(6, _chatglm, {"rope.dimension_count": HEAD_LENGTH // 2}),
    "cohere2": TinyModel(
        8, _parallel, EPSILON | {"attention.sliding_window": WINDOW, "logit_scale": 0.25}, is_tied=True
    ),
    "command-r": TinyModel(6, _parallel, EPSILON | {"logit_scale": 0.0625}, is_tied=True),
    "dbrx": TinyModel(6, _dbrx, EXPERTS_WIDE | EPSILON | {"attention.clamp_kqv": 8.0}),
    "deepseek": TinyModel(6, _deepseek, LEADING),
    "dots1": TinyModel(6, _dots1, LEADING | ALL_HEADS | {"expert_gating_func": 2}),
    "ernie4_5": TinyModel(6, _plain, is_tied=True),
    "exaone": TinyModel(6, _plain, extra={"rope_freqs.weight": (HEAD_LENGTH // 2,)}),
    "exaone4": TinyModel(6, _exaone4, is_tied=True),
    "falcon": TinyModel(6, _falcon, EPSILON, extra=OUTPUT_BIAS),
    "gemma": TinyModel(6, _plain, is_tied=True, tokenizer="llama"),
    "glm4moe": TinyModel(
        6,
        _glm4moe,
        EXPERT_KEYS
        | {
            "leading_dense_block_count": 2,
            "expert_shared_count": 1,
            "expert_weights_scale": 1.5,
            "expert_weights_norm": True,
            "rope.dimension_count": HEAD_LENGTH // 2,
        },
    ),
    "granitemoe": TinyModel(
        6, _granitemoe, GRANITE | EXPERT_KEYS | {"feed_forward_length": EXPERT_FEED_FORWARD}, is_tied=True
    ),
    "hunyuan-dense": TinyModel(6, _normed, is_tied=True),
    "hunyuan-moe": TinyModel(6, _hunyuan_moe, EXPERTS_WIDE),
    "internlm2": TinyModel(6, _plain),
    "minicpm": TinyModel(6, _plain, is_tied=True),
    "minimax-m2": TinyModel(6, _minimax_m2, EXPERTS_WIDE | {"expert_gating_func": 2}),
    "mistral3": TinyModel(
        6, _plain, {"attention.temperature_scale": 0.1, "rope.scaling.original_context_length": 16}
    ),
    "mistral4": TINY_MODELS["deepseek2"],
    "nemotron": TinyModel(6, _nemotron, EPSILON, extra=OUTPUT_BIAS),
    "olmo2": TinyModel(8, _olmo2, {"attention.sliding_window": WINDOW}),
    "olmoe": TinyModel(6, _olmoe, EXPERTS_WIDE | ALL_HEADS),
    "orion": TinyModel(6, _stablelm, EPSILON, extra=OUTPUT_BIAS),
    "phimoe": TinyModel(
        6,
        _phimoe,
        EXPERTS_WIDE | {"rope.scaling.original_context_length": 256, "rope.scaling.attn_factor": 1.19},
        extra=OUTPUT_BIAS
        | {"output.bias": (VOCABULARY,)}
        | {f"rope_factors_{length}.weight": (HEAD_LENGTH // 2,) for length in ("long", "short")},
    ),
    "qwen": TinyModel(6, _qwen, ALL_HEADS | {"feed_forward_length": 2 * FEED_FORWARD}),
    "qwen2moe": TinyModel(
        6, _qwen2moe, EXPERT_KEYS | {"expert_shared_feed_forward_length": EXPERT_FEED_FORWARD}
    ),
    "seed_oss": TinyModel(6, _seed_oss),
    "stablelm": TinyModel(6, _stablelm, EPSILON, extra=OUTPUT_BIAS),
    "starcoder2": TinyModel(6, _starcoder2, EPSILON, extra=OUTPUT_BIAS, is_tied=True),
    "xverse": TinyModel(6, _plain),
}
