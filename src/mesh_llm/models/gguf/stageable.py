"""Which architectures can be cut into stages, and what each needs. Data, with its source, and who reads it.

Source: llama.cpp b11549, src/models. For each entry the constructor of the graph was read (`graph::graph` of
the file named): it must look at nothing but its own layers, its input and positions, and name what a layer
leaves `l_out`; and `load_arch_hparams`, for what is guessed from the number of layers. The input is a vector
for every stage, which `llm_graph_context::build_inp_embd` (llama-graph.cpp) takes in place of tokens; where
the graph would treat vectors as no stage may, they are written over its `entrance` instead.
An architecture that is not here is not cut. Counterpart: `models/stages/stage_keys.py` writes what is said
here into a stage's header.
"""

import math
import struct
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby

from mesh_llm.core.errors import RequestRefused
from mesh_llm.core.stages import Cuttable
from mesh_llm.models.gguf.contents import Header, Scalar
from mesh_llm.models.gguf.keys import Keys
from mesh_llm.models.gguf.layers import layers_of
from mesh_llm.models.gguf.model_facts import facts_of

Guesses = Callable[[Keys], Mapping[str, Scalar]]
Counts = Callable[[Keys], frozenset[int]]


def _none(_: Keys) -> Mapping[str, Scalar]:
    return {}


def _no_counts(_: Keys) -> frozenset[int]:
    return frozenset()


@dataclass(frozen=True, slots=True)
class Stageable:
    """What one architecture needs."""

    source: str
    """File below src/models whose graph was read."""
    period: int = 1
    """The graph counts its layers: stages begin at multiples of it."""
    scales_tokens: bool = False
    """Embedding rows are multiplied with the root of their width, vectors that come in are not."""
    scales_vectors: bool = False
    """By `embedding_scale`, and vectors too: for every stage but the first it is set to 1."""
    entrance: str | None = None
    """Name of the tensor that hidden states are written over where the graph spoils vectors, or ends at them;
    what stands before it is computed from tokens that mean nothing. None: it takes vectors as they are."""
    guesses: Guesses = _none
    """Keys that llama.cpp guesses from the number of layers where the header lacks them: as it would for the
    whole model."""
    counts: Counts = _no_counts
    """Numbers of layers that llama.cpp takes for another model: no stage, and no model that is cut, may
    have so many."""


def trunk_of(keys: Keys) -> int:
    """The number of layers without those that only draft, which no stage has."""
    return keys.required_number("block_count") - keys.number("nextn_predict_layers")


def _vocabulary(keys: Keys) -> int:
    return keys.number("vocab_size") or keys.count("tokenizer.ggml.tokens")


def _minicpm_guesses(keys: Keys) -> Mapping[str, Scalar]:
    """`1.4f / sqrtf(n_layer)`, each step rounded to 32 bits as there."""
    if keys.has("residual_scale"):
        return {}
    return {"residual_scale": _rounded(_rounded(1.4) / _rounded(math.sqrt(trunk_of(keys))))}


def _rounded(number: float) -> float:
    """To the nearest 32-bit float."""
    return struct.unpack("<f", struct.pack("<f", number))[0]


def _is_lite(keys: Keys) -> bool:
    return trunk_of(keys) in (26, 27) or (trunk_of(keys) == 48 and _vocabulary(keys) == 128_256)


def _deepseek2_guesses(keys: Keys) -> Mapping[str, Scalar]:
    found: dict[str, Scalar] = {}
    if _is_lite(keys):
        found["attention.q_lora_rank"] = 0
    if not keys.number("expert_gating_func"):
        is_glm_lite = trunk_of(keys) in (47, 48) and _vocabulary(keys) == 154_880
        found["expert_gating_func"] = 2 if is_glm_lite else 1  # sigmoid, softmax: llama-hparams.h
    return found


def _deepseek2_counts(keys: Keys) -> frozenset[int]:
    if _is_lite(keys):
        return frozenset()
    return frozenset({26, 27, 48} if _vocabulary(keys) == 128_256 else {26, 27})


def _gemma3_counts(keys: Keys) -> frozenset[int]:
    """62 layers are Gemma 3 27B, which scales queries as the one of Gemma 2 does."""
    return _scales_queries_otherwise(keys, 62)


def _scales_queries_otherwise(keys: Keys, layers: int) -> frozenset[int]:
    width, heads = keys.required_number("embedding_length"), max(1, keys.number("attention.head_count"))
    same = width // heads == keys.number("attention.key_length", width // heads)
    return frozenset() if same else frozenset({layers})


def _gemma2_counts(keys: Keys) -> frozenset[int]:
    """46 layers are Gemma 2 27B, which scales queries by width and heads, the others by the key's length."""
    return _scales_queries_otherwise(keys, 46)


def _command_r_counts(keys: Keys) -> frozenset[int]:
    """From 64 layers on there are norms of queries and keys, with fewer there are none."""
    return frozenset({trunk_of(keys)}) if trunk_of(keys) >= 64 else frozenset()


def _exaone4_counts(_: Keys) -> frozenset[int]:
    """64 layers are the model of 32 B, the only one whose layers slide."""
    return frozenset({64})


SCALED = "inp_scaled"
"""What gemma.cpp and gemma2.cpp make of embeddings, and of vectors just so."""

EMBEDDED = "embd"
"""What `build_inp_embd` ends with. Without M-RoPE glm4.cpp and glm4-moe.cpp abort at vectors."""

STAGEABLE: dict[str, Stageable] = {
    "apertus": Stageable("apertus.cpp"),
    "arcee": Stageable("arcee.cpp"),
    "bailingmoe": Stageable("bailingmoe.cpp"),
    "bailingmoe2": Stageable("bailingmoe2.cpp"),
    "chatglm": Stageable("chatglm.cpp"),
    "cohere2": Stageable("cohere2.cpp"),
    "command-r": Stageable("command-r.cpp", counts=_command_r_counts),
    "dbrx": Stageable("dbrx.cpp"),
    "deepseek": Stageable("deepseek.cpp"),
    "deepseek2": Stageable("deepseek2.cpp", guesses=_deepseek2_guesses, counts=_deepseek2_counts),
    "dots1": Stageable("dots1.cpp"),
    "ernie4_5": Stageable("ernie4-5.cpp"),
    "exaone": Stageable("exaone.cpp"),
    "exaone4": Stageable("exaone4.cpp", counts=_exaone4_counts),
    "falcon": Stageable("falcon.cpp"),
    "gemma": Stageable("gemma.cpp", scales_tokens=True, entrance=SCALED),
    "gemma2": Stageable("gemma2.cpp", scales_tokens=True, entrance=SCALED, counts=_gemma2_counts),
    "gemma3": Stageable("gemma3.cpp", scales_tokens=True, counts=_gemma3_counts),
    "glm4": Stageable("glm4.cpp", entrance=EMBEDDED),
    "glm4moe": Stageable("glm4-moe.cpp", entrance=EMBEDDED),
    "gpt-oss": Stageable("openai-moe.cpp"),
    "granite": Stageable("granite.cpp", scales_vectors=True),
    "granitemoe": Stageable("granite-moe.cpp", scales_vectors=True),
    "hunyuan-dense": Stageable("hunyuan-vl.cpp"),
    "hunyuan-moe": Stageable("hunyuan-moe.cpp"),
    "internlm2": Stageable("internlm2.cpp"),
    "llama": Stageable("llama.cpp"),
    "minicpm": Stageable("minicpm.cpp", scales_vectors=True, guesses=_minicpm_guesses),
    "minimax-m2": Stageable("minimax-m2.cpp"),
    "mistral3": Stageable("mistral3.cpp"),
    "mistral4": Stageable("deepseek2.cpp", guesses=_deepseek2_guesses, counts=_deepseek2_counts),
    "nemotron": Stageable("nemotron.cpp"),
    "olmo2": Stageable("olmo2.cpp"),
    "olmoe": Stageable("olmoe.cpp"),
    "orion": Stageable("orion.cpp"),
    "phi3": Stageable("phi3.cpp"),
    "phimoe": Stageable("phi3.cpp"),
    "qwen": Stageable("qwen.cpp"),
    "qwen2": Stageable("qwen2.cpp"),
    "qwen2moe": Stageable("qwen2moe.cpp"),
    "qwen3": Stageable("qwen3.cpp"),
    "qwen3moe": Stageable("qwen3moe.cpp"),
    "seed_oss": Stageable("seed-oss.cpp"),
    "smollm3": Stageable("smollm3.cpp", period=4),
    "stablelm": Stageable("stablelm.cpp"),
    "starcoder2": Stageable("starcoder2.cpp"),
    "xverse": Stageable("xverse.cpp"),
}
"""By `general.architecture`. Sliding windows need no period: a stage's header lists which layers slide."""


def stageable(parts: Sequence[Header]) -> Stageable:
    """How this model is cut. Raises RequestRefused where it cannot be, ModelDamaged."""
    keys = Keys(parts[0].name, parts[0].metadata)
    known = STAGEABLE.get(keys.architecture)
    if known is None:
        raise _refused(keys, "how to cut its architecture is not known")
    if "general.tensor_extra.name" in parts[0].metadata:
        raise _refused(keys, "its header speaks of single tensors by name")
    if keys.has("deepstack_mapping"):
        raise _refused(keys, "it takes pictures into several of its layers")
    if sum(number > 0 for number in _sections(parts[0], keys)) > 1:
        raise _refused(keys, "its positions have several dimensions")
    if trunk_of(keys) in known.counts(keys):
        raise _refused(keys, f"llama.cpp knows it by its {trunk_of(keys)} layers")
    return known


def cuttable(parts: Sequence[Header]) -> Cuttable:
    """What planning must know. Raises RequestRefused where this model cannot be split, ModelDamaged."""
    facts = facts_of(parts)
    known = stageable(parts)
    keys = Keys(parts[0].name, parts[0].metadata)
    if facts.pooling is not None:
        raise _refused(keys, "it makes embeddings, not text")
    layer_bytes = [0] * facts.layers
    others: dict[str, int] = {}
    for tensor in (tensor for part in parts for tensor in part.tensors):
        layer = layer_of(tensor.name)
        if layer is None:
            others[tensor.name] = tensor.bytes
        elif layer < facts.layers:
            layer_bytes[layer] += tensor.bytes
    is_tied = OUTPUT not in others
    embedding = 0 if is_tied else others.get(EMBEDDING, 0)
    return Cuttable(
        facts=replace(facts, weights_bytes=sum(layer_bytes) + sum(others.values())),
        layer_bytes=tuple(layer_bytes),
        output_bytes=sum(others.values()) - embedding,
        embedding_bytes=embedding,
        cuts=tuple(range(known.period, facts.layers, known.period)),
        lengths_refused=tuple(sorted(lengths_refused(parts))),
        merges=keys.count("tokenizer.ggml.merges"),
    )


def lengths_refused(parts: Sequence[Header]) -> frozenset[int]:
    """Numbers of layers that no stage may have. Raises RequestRefused, ModelDamaged.

    Where layers slide, one of them must be in each stage (`llama_model::create_memory` asserts it): a stage
    is longer than any row of layers that do not.
    """
    keys = Keys(parts[0].name, parts[0].metadata)
    sliding = layers_of(keys).sliding_layers
    rows = [len(list(row)) for slides, row in groupby(sliding) if not slides] if any(sliding) else []
    return stageable(parts).counts(keys) | frozenset(range(1, max(rows, default=0) + 1))


def residual_name(layers: int) -> str:
    """The tensor in which a stage of so many layers leaves the residual stream, e.g. `l_out-11`: what
    `llm_graph_context::cb` makes of `l_out` and the layer's number in its own file."""
    return f"l_out-{layers - 1}"


def entrance_name(parts: Sequence[Header]) -> str | None:
    """The tensor that every stage and the head write hidden states over; None where they go in as vectors."""
    return stageable(parts).entrance


def embedding_scale(parts: Sequence[Header]) -> float:
    """What the head multiplies embedding rows with, because the graph does so for tokens only; else 1.0.

    `sqrtf(n_embd)`: the nearest 32-bit float.
    """
    width = Keys(parts[0].name, parts[0].metadata).required_number("embedding_length")
    return math.sqrt(width) if stageable(parts).scales_tokens else 1.0


EMBEDDING = "token_embd.weight"
OUTPUT = "output.weight"


def layer_of(tensor: str) -> int | None:
    """The layer that a tensor belongs to, `blk.12.attn_q.weight`; None for those of the whole model."""
    word, _, rest = tensor.partition(".")
    number = rest.partition(".")[0]
    is_layer = word == "blk" and number.isascii() and number.isdigit() and len(number) < 6
    return int(number) if is_layer else None


def _sections(first: Header, keys: Keys) -> tuple[int, ...]:
    value = first.metadata.get(f"{keys.architecture}.rope.dimension_sections", ())
    return tuple(int(each) for each in value if isinstance(each, int)) if isinstance(value, tuple) else ()


def _refused(keys: Keys, why: str) -> RequestRefused:
    return RequestRefused(
        f"{keys.name} (architecture `{keys.architecture}`) cannot be split (yet): {why}. "
        "Run it on a node that can hold all of it, or choose another model.",
        code="cannot_be_split",
        parameter="model",
    )
