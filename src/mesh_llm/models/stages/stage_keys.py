"""Which metadata a stage's header has in place of the model's. Pure.

Counterpart: `load_hparams` and `load_arch_hparams` in llama.cpp (b11549), which count layers from 0 in every
file; `gguf/stageable.py` has what is peculiar to an architecture. All other keys are copied as they are.
"""

from collections.abc import Mapping, Sequence

from mesh_llm.core.errors import ModelDamaged
from mesh_llm.core.stages import LayerRange
from mesh_llm.models.gguf import architectures
from mesh_llm.models.gguf.contents import Header, Scalar
from mesh_llm.models.gguf.keys import Keys
from mesh_llm.models.gguf.layers import layers_of
from mesh_llm.models.gguf.stageable import stageable
from mesh_llm.models.stages.composition import NewValue

PER_LAYER = (
    "attention.head_count",
    "attention.head_count_kv",
    "attention.rope_pattern",
    "attention.sliding_window_pattern",
    "expert_feed_forward_length",
    "expert_used_count",
    "feed_forward_length",
    "swiglu_clamp_exp",
    "swiglu_clamp_shexp",
)
"""Arrays of these have one entry a layer (`get_key_or_arr` with `n_layer_all`, `load_swa_pattern`)."""

PER_LAYER_ANYWHERE = ("xielu.alpha_n", "xielu.alpha_p", "xielu.beta", "xielu.eps")
"""So have these, whose names do not begin with the architecture's (apertus.cpp)."""

DROPPED = ("split.",)
"""How keys begin that no stage file has: it is one file."""

TOKENIZER = "tokenizer."


def stage_keys(
    parts: Sequence[Header], layers: LayerRange, *, is_head: bool
) -> tuple[frozenset[str], Mapping[str, NewValue]]:
    """Keys that are left out, and keys that have another value or are new. Raises RequestRefused,
    ModelDamaged."""
    first = parts[0]
    keys = Keys(first.name, first.metadata)
    changed = _of_layers(first, keys, layers)
    changed |= {f"{keys.architecture}.{key}": value for key, value in stageable(parts).guesses(keys).items()}
    if layers.first and stageable(parts).scales_vectors:
        changed[f"{keys.architecture}.embedding_scale"] = 1.0
    if not is_head:
        changed["tokenizer.ggml.model"] = "no_vocab"
        changed[f"{keys.architecture}.vocab_size"] = 1
    gone = DROPPED if is_head else (*DROPPED, TOKENIZER)
    dropped = {key for key in first.metadata if key.startswith(gone) and key not in changed}
    return frozenset(dropped), changed


def _of_layers(first: Header, keys: Keys, layers: LayerRange) -> dict[str, NewValue]:
    """What counts layers, or has one entry for each."""
    name = keys.architecture
    changed: dict[str, NewValue] = {f"{name}.block_count": layers.count}
    if keys.has("nextn_predict_layers"):
        changed[f"{name}.nextn_predict_layers"] = 0
    if keys.has("leading_dense_block_count"):
        changed[f"{name}.leading_dense_block_count"] = max(
            0, keys.number("leading_dense_block_count") - layers.first
        )
    for key in (*(f"{name}.{key}" for key in PER_LAYER), *PER_LAYER_ANYWHERE):
        value = first.metadata.get(key)
        if isinstance(value, tuple):
            changed[key] = _cut(keys, key, value, layers)
    if name in architectures.SLIDING:
        sliding = layers_of(keys).sliding_layers
        if any(sliding):
            changed[f"{name}.attention.sliding_window_pattern"] = sliding[layers.first : layers.end]
    return changed


def _cut(keys: Keys, key: str, value: tuple[Scalar, ...], layers: LayerRange) -> tuple[Scalar, ...]:
    if len(value) < layers.end:
        raise ModelDamaged(
            f"{keys.name} cannot be cut: `{key}` has no entry for each layer. Fetch the model again."
        )
    return value[layers.first : layers.end]
