"""Random models of a few kilobytes, one for each architecture, that llama.cpp loads and computes.

Enough layers for two runs of each layer pattern. The same architecture and seed give the same file. What an
architecture needs was read in llama.cpp's src/models (load_arch_hparams and load_arch_tensors of each).
"""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import numpy.typing as npt

WIDTH = 64
HEADS = 4
KV_HEADS = 2
HEAD_LENGTH = 16
FEED_FORWARD = 96
EXPERTS = 4
EXPERTS_USED = 2
EXPERT_FEED_FORWARD = 32
CONTEXT = 512
WINDOW = 8
"""Short, so that a test soon sees whether it is kept."""

NEVER = -1e9
"""A bias with which an expert is not chosen."""

VOCABULARY = 0
"""In place of a size: the size of the vocabulary."""

WORDS = ("the", "mesh", "node", "stage", "layer", "ring", "head", "token", "of", "and", "a", "is")
TEMPLATE = (
    "{% for message in messages %}{{ message.role }}: {{ message.content }}\n{% endfor %}"
    "{% if add_generation_prompt %}assistant:{% endif %}"
)

QUANTISED = tuple(
    f"{name}.weight"
    for name in (
        "token_embd",
        *(f"ffn_{part}{kind}" for part in ("gate", "up", "down", "gate_up") for kind in ("", "_exps")),
    )
)

Sizes = tuple[int, ...]
"""Of a tensor, fastest first, as ggml counts."""
Tensors = dict[str, Sizes]


@dataclass(frozen=True)
class TinyModel:
    """How a model of one architecture is made."""

    layers: int
    layer: Callable[[int], Tensors]
    """The tensors of layer n, named without `blk.n.`."""
    keys: Mapping[str, Any] = field(default_factory=dict[str, Any])
    """Beside the usual ones, named without the architecture; None leaves a usual one out."""
    extra: Tensors = field(default_factory=dict[str, Sizes])
    is_tied: bool = False
    tokenizer: str = "gpt2"
    experts_type: gguf.GGMLQuantizationType = gguf.GGMLQuantizationType.Q8_0


def attention(width: int = WIDTH, *, biased: bool = False, normed: bool = False) -> Tensors:
    query, key = HEADS * HEAD_LENGTH, KV_HEADS * HEAD_LENGTH
    tensors: Tensors = {
        "attn_norm.weight": (width,),
        "attn_q.weight": (width, query),
        "attn_k.weight": (width, key),
        "attn_v.weight": (width, key),
        "attn_output.weight": (query, width),
    }
    if biased:
        tensors |= {"attn_q.bias": (query,), "attn_k.bias": (key,), "attn_v.bias": (key,)}
    if normed:
        tensors |= {"attn_q_norm.weight": (HEAD_LENGTH,), "attn_k_norm.weight": (HEAD_LENGTH,)}
    return tensors


def feed_forward() -> Tensors:
    return {
        "ffn_norm.weight": (WIDTH,),
        "ffn_gate.weight": (WIDTH, FEED_FORWARD),
        "ffn_up.weight": (WIDTH, FEED_FORWARD),
        "ffn_down.weight": (FEED_FORWARD, WIDTH),
    }


def experts() -> Tensors:
    return {
        "ffn_gate_inp.weight": (WIDTH, EXPERTS),
        "ffn_gate_exps.weight": (WIDTH, EXPERT_FEED_FORWARD, EXPERTS),
        "ffn_up_exps.weight": (WIDTH, EXPERT_FEED_FORWARD, EXPERTS),
        "ffn_down_exps.weight": (EXPERT_FEED_FORWARD, WIDTH, EXPERTS),
    }


EXPERT_KEYS: dict[str, Any] = {
    "expert_count": EXPERTS,
    "expert_used_count": EXPERTS_USED,
    "expert_feed_forward_length": EXPERT_FEED_FORWARD,
}
POST_NORMS: Tensors = {"post_attention_norm.weight": (WIDTH,), "post_ffw_norm.weight": (WIDTH,)}


def _phi3(_: int) -> Tensors:
    return {
        "attn_norm.weight": (WIDTH,),
        "attn_qkv.weight": (WIDTH, WIDTH + 2 * KV_HEADS * HEAD_LENGTH),
        "attn_output.weight": (WIDTH, WIDTH),
        "ffn_norm.weight": (WIDTH,),
        "ffn_up.weight": (WIDTH, 2 * FEED_FORWARD),
        "ffn_down.weight": (FEED_FORWARD, WIDTH),
    }


def _glm4(_: int) -> Tensors:
    wide = {"ffn_up.weight": (WIDTH, 2 * FEED_FORWARD)}
    ffn = {name: sizes for name, sizes in feed_forward().items() if name != "ffn_gate.weight"}
    return attention(biased=True) | ffn | wide | POST_NORMS


def _gpt_oss(_: int) -> Tensors:
    return (
        attention(biased=True)
        | experts()
        | {
            "post_attention_norm.weight": (WIDTH,),
            "attn_output.bias": (WIDTH,),
            "attn_sinks.weight": (HEADS,),
            "ffn_gate_inp.bias": (EXPERTS,),
            "ffn_gate_exps.bias": (EXPERT_FEED_FORWARD, EXPERTS),
            "ffn_up_exps.bias": (EXPERT_FEED_FORWARD, EXPERTS),
            "ffn_down_exps.bias": (WIDTH, EXPERTS),
        }
    )


LATENT, LATENT_QUERY, ROPE_LENGTH, VALUE_LENGTH = 32, 32, 16, 16


def _deepseek2(layer: int) -> Tensors:
    key_length = ROPE_LENGTH + VALUE_LENGTH
    tensors: Tensors = {
        "attn_norm.weight": (WIDTH,),
        "attn_q_a.weight": (WIDTH, LATENT_QUERY),
        "attn_q_a_norm.weight": (LATENT_QUERY,),
        "attn_q_b.weight": (LATENT_QUERY, HEADS * key_length),
        "attn_kv_a_mqa.weight": (WIDTH, LATENT + ROPE_LENGTH),
        "attn_kv_a_norm.weight": (LATENT,),
        "attn_k_b.weight": (VALUE_LENGTH, LATENT, HEADS),
        "attn_v_b.weight": (LATENT, VALUE_LENGTH, HEADS),
        "attn_output.weight": (HEADS * VALUE_LENGTH, WIDTH),
        "ffn_norm.weight": (WIDTH,),
    }
    if layer < 2:
        return tensors | feed_forward()
    shared: Tensors = {
        "ffn_gate_shexp.weight": (WIDTH, EXPERT_FEED_FORWARD),
        "ffn_up_shexp.weight": (WIDTH, EXPERT_FEED_FORWARD),
        "ffn_down_shexp.weight": (EXPERT_FEED_FORWARD, WIDTH),
    }
    return tensors | experts() | shared | {"exp_probs_b.bias": (EXPERTS,)}


TINY_MODELS: dict[str, TinyModel] = {
    "llama": TinyModel(
        6,
        lambda _: attention() | feed_forward(),
        extra={"rope_freqs.weight": (HEAD_LENGTH // 2,)},
        tokenizer="llama",
    ),
    "qwen2": TinyModel(6, lambda _: attention(biased=True) | feed_forward(), is_tied=True),
    "qwen3": TinyModel(6, lambda _: attention(normed=True) | feed_forward(), is_tied=True),
    "qwen3moe": TinyModel(
        6,
        lambda _: attention(normed=True) | {"ffn_norm.weight": (WIDTH,)} | experts(),
        EXPERT_KEYS,
    ),
    "gemma2": TinyModel(
        6,
        lambda _: attention() | feed_forward() | POST_NORMS,
        {
            "attention.sliding_window": WINDOW,
            "attn_logit_softcapping": 50.0,
            "final_logit_softcapping": 30.0,
        },
        is_tied=True,
        tokenizer="llama",
    ),
    "gemma3": TinyModel(
        12,
        lambda _: attention(normed=True) | feed_forward() | POST_NORMS,
        {"attention.sliding_window": WINDOW, "rope.freq_base": 1000000.0},
        is_tied=True,
        tokenizer="llama",
    ),
    "phi3": TinyModel(
        6,
        _phi3,
        {"rope.scaling.original_context_length": CONTEXT // 2, "rope.scaling.attn_factor": 1.19},
        extra={
            "rope_factors_long.weight": (HEAD_LENGTH // 2,),
            "rope_factors_short.weight": (HEAD_LENGTH // 2,),
        },
        tokenizer="llama",
    ),
    "glm4": TinyModel(6, _glm4, {"rope.dimension_count": HEAD_LENGTH // 2}),
    "gpt-oss": TinyModel(6, _gpt_oss, EXPERT_KEYS | {"attention.sliding_window": WINDOW}),
    "granite": TinyModel(
        6,
        lambda _: attention() | feed_forward(),
        {"embedding_scale": 12.0, "residual_scale": 0.22, "logit_scale": 8.0, "attention.scale": 0.015625},
        is_tied=True,
    ),
    "smollm3": TinyModel(8, lambda _: attention() | feed_forward(), is_tied=True),
    "deepseek2": TinyModel(
        6,
        _deepseek2,
        EXPERT_KEYS
        | {
            "leading_dense_block_count": 2,
            "attention.head_count_kv": 1,
            "attention.q_lora_rank": LATENT_QUERY,
            "attention.kv_lora_rank": LATENT,
            "attention.key_length": LATENT + ROPE_LENGTH,
            "attention.value_length": LATENT,
            "attention.key_length_mla": ROPE_LENGTH + VALUE_LENGTH,
            "attention.value_length_mla": VALUE_LENGTH,
            "rope.dimension_count": ROPE_LENGTH,
            "expert_shared_count": 1,
            "expert_weights_scale": 1.5,
            "expert_weights_norm": True,
            "expert_gating_func": 2,
        },
    ),
}


def write_tiny_model(
    path: Path,
    architecture: str,
    *,
    seed: int = 0,
    tensors_per_file: int = 0,
    layers: int = 0,
    tiny: TinyModel | None = None,
    never: Mapping[str, Collection[int]] | None = None,
) -> list[Path]:
    """The files of the model: `path`, or with `tensors_per_file` parts named after it. `layers`: other than
    usual, where the architecture's pattern allows it. `tiny`: how to make it, if not as TINY_MODELS says.
    `never`: for tensors that are a bias of a choice, by name, which are never chosen."""
    tiny = tiny or TINY_MODELS[architecture]
    writer = gguf.GGUFWriter(path, architecture, split_max_tensors=tensors_per_file)
    count = layers or tiny.layers
    _add_keys(writer, tiny, count, architecture)
    vocabulary = _add_tokenizer(writer, tiny.tokenizer)
    chance = np.random.default_rng(seed)
    for name, sizes in _tensors(tiny, count, vocabulary).items():
        weights = _weights(name, sizes, chance)
        weights[list((never or {}).get(name, ()))] = NEVER
        _add_tensor(writer, name, weights, tiny.experts_type)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    if not tensors_per_file:
        return [path]
    return sorted(path.parent.glob(f"{path.stem}-?????-of-?????.gguf"))


def _add_keys(writer: gguf.GGUFWriter, tiny: TinyModel, layers: int, architecture: str) -> None:
    usual: dict[str, Any] = {
        "block_count": layers,
        "context_length": CONTEXT,
        "embedding_length": WIDTH,
        "feed_forward_length": FEED_FORWARD,
        "attention.head_count": HEADS,
        "attention.head_count_kv": KV_HEADS,
        "attention.key_length": HEAD_LENGTH,
        "attention.value_length": HEAD_LENGTH,
        "attention.layer_norm_rms_epsilon": 1e-6,
        "rope.dimension_count": HEAD_LENGTH,
        "rope.freq_base": 10000.0,
    }
    writer.add_name("Tiny")  # llama.cpp takes other names for hints: "phi3" asks for tokens of Phi 3
    for key, value in (usual | dict(tiny.keys)).items():
        if value is not None:
            _add_key(writer, key if key.startswith("xielu.") else f"{architecture}.{key}", value)


def _add_key(writer: gguf.GGUFWriter, key: str, value: Any) -> None:
    if isinstance(value, bool):
        writer.add_bool(key, value)
    elif isinstance(value, int):
        writer.add_uint32(key, value)
    elif isinstance(value, float):
        writer.add_float32(key, value)
    elif isinstance(value, str):
        writer.add_string(key, value)
    else:
        writer.add_array(key, value)


def _tensors(tiny: TinyModel, layers: int, vocabulary: int) -> Tensors:
    tensors: Tensors = {"token_embd.weight": (WIDTH, vocabulary), "output_norm.weight": (WIDTH,)}
    if not tiny.is_tied:
        tensors["output.weight"] = (WIDTH, vocabulary)
    tensors |= tiny.extra
    tensors = {name: tuple(size or vocabulary for size in sizes) for name, sizes in tensors.items()}
    for layer in range(layers):
        tensors |= {f"blk.{layer}.{name}": sizes for name, sizes in tiny.layer(layer).items()}
    return tensors


def _weights(name: str, sizes: Sizes, chance: np.random.Generator) -> npt.NDArray[np.float32]:
    drawn = chance.standard_normal(sizes[::-1], np.float32)
    if "norm" in name:
        return 1 + drawn / 10
    if name.startswith("rope_"):
        return 1 + np.abs(drawn)
    scale = 1.0 if name.startswith("token_embd") else 1.5 / np.sqrt(sizes[0])
    return drawn * np.float32(scale)


def _add_tensor(
    writer: gguf.GGUFWriter,
    name: str,
    weights: npt.NDArray[np.float32],
    experts_type: gguf.GGMLQuantizationType,
) -> None:
    """Embeddings and feed-forward matrices are quantised, as in the models people run."""
    if weights.ndim > 1 and name.endswith(QUANTISED):
        kind = experts_type if "_exps" in name else gguf.GGMLQuantizationType.Q8_0
        writer.add_tensor(name, gguf.quants.quantize(weights, kind), raw_dtype=kind)
    else:
        writer.add_tensor(name, weights)


def _add_tokenizer(writer: gguf.GGUFWriter, model: str) -> int:
    """The size of the vocabulary. Every byte has a token, so every text has tokens."""
    writer.add_tokenizer_model(model)
    size = _add_sentencepiece(writer) if model == "llama" else _add_byte_pairs(writer)
    writer.add_chat_template(TEMPLATE)
    return size


def _add_sentencepiece(writer: gguf.GGUFWriter) -> int:
    letters = [chr(number) for number in range(ord("a"), ord("z") + 1)]
    control, unknown, normal, byte = (int(kind) for kind in (3, 2, 1, 6))
    entries = [("<unk>", 0.0, unknown), ("<s>", 0.0, control), ("</s>", 0.0, control)]
    entries += [(f"<0x{number:02X}>", 0.0, byte) for number in range(256)]
    entries += [(piece, -float(place), normal) for place, piece in enumerate(_pieces("\u2581"))]
    entries += [(letter, -1000.0 - place, normal) for place, letter in enumerate(["\u2581", *letters])]
    writer.add_tokenizer_pre("default")
    writer.add_token_list([text for text, _, _ in entries])
    writer.add_token_scores([score for _, score, _ in entries])
    writer.add_token_types([kind for _, _, kind in entries])
    writer.add_unk_token_id(0)
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    return len(entries)


def _pieces(space: str) -> list[str]:
    """Each word and all its beginnings, so that merging letter by letter gets there."""
    found: dict[str, None] = {}
    for word in WORDS:
        for end in range(len(word), 0, -1):
            found[space + word[:end]] = None
    return list(found)


def _add_byte_pairs(writer: gguf.GGUFWriter) -> int:
    alphabet = _byte_letters()
    pieces = _pieces("\u0120")  # how byte-level BPE writes a space
    merges = sorted({(piece[:-1], piece[-1]) for piece in pieces}, key=lambda pair: (len(pair[0]), pair))
    tokens = [*alphabet, *(first + second for first, second in merges), "<|im_start|>", "<|im_end|>"]
    size = len(tokens)
    writer.add_tokenizer_pre("qwen2")
    writer.add_token_list(tokens)
    writer.add_token_types([1] * (size - 2) + [3, 3])
    writer.add_token_merges([f"{first} {second}" for first, second in merges])
    writer.add_bos_token_id(size - 2)
    writer.add_eos_token_id(size - 1)
    return size


def _byte_letters() -> list[str]:
    """GPT-2's letter for each byte: itself where it can be seen, else one from 256 on."""
    seen = [*range(ord("!"), ord("~") + 1), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    unseen = [number for number in range(256) if number not in seen]
    letters = {number: chr(number) for number in seen}
    letters |= {number: chr(256 + place) for place, number in enumerate(unseen)}
    return [letters[number] for number in range(256)]
