"""What each layer remembers of a context: keys and values, a window of them, or a state of fixed size.

Counterpart of `load_hparams` and `llama_hparams` in llama.cpp (b11549): same keys, same defaults.
"""

from dataclasses import dataclass

from mesh_llm.models.gguf import architectures
from mesh_llm.models.gguf.keys import Keys

LAYERS_MAX = 512
"""llama-hparams.h: `LLAMA_MAX_LAYERS`."""

_STATE_ELEMENT_BYTES = 4
"""Recurrent states are F32 (`create_memory`)."""


@dataclass(frozen=True, slots=True)
class Layers:
    """The memory of a model; names and units as in `core.model.ModelFacts`."""

    kv_heads: tuple[int, ...]
    sliding_window: int
    sliding_layers: tuple[bool, ...]
    recurrent_bytes: int


def layers_of(keys: Keys) -> Layers:
    """Without the layers that only draft (`nextn_predict_layers`): they have no memory of their own."""
    count = keys.required_number("block_count")
    if not 0 < count <= LAYERS_MAX:
        raise keys.damaged(f"it claims {count} layers, {LAYERS_MAX} are the most")
    trunk = count - keys.number("nextn_predict_layers")
    if trunk <= 0:
        raise keys.damaged("all its layers only draft for another model")
    recurrent = _recurrent(keys, trunk)
    window, sliding = _sliding(keys, trunk, recurrent)
    kv_heads = _kv_heads(keys, trunk, recurrent)
    state = sum(recurrent) * _state_elements(keys) * _STATE_ELEMENT_BYTES
    loops = max(1, keys.number("num_loops", 1))
    if trunk * loops > LAYERS_MAX:
        raise keys.damaged(f"it claims {trunk * loops} layers, {LAYERS_MAX} are the most")
    extra = (1,) if keys.architecture in architectures.EXTRA_LAYER_OF_ONE_KV_HEAD else ()
    return Layers(kv_heads * loops + extra, window, sliding * loops + (False,) * len(extra), state * loops)


def _kv_heads(keys: Keys, count: int, recurrent: tuple[bool, ...]) -> tuple[int, ...]:
    if keys.architecture in architectures.WITHOUT_CACHE:
        return (0,) * count
    heads = keys.per_layer("attention.head_count", count)
    kv_heads = keys.per_layer("attention.head_count_kv", count) if _has_kv_heads(keys) else heads
    kept = _kept_from_start(keys, count)
    both = keys.architecture in architectures.RECURRENT_AND_ATTENTIVE or not _is_known_hybrid(keys)
    return tuple(
        number if index < kept and (both or not recurrent[index]) else 0
        for index, number in enumerate(kv_heads)
    )


def _has_kv_heads(keys: Keys) -> bool:
    return keys.has("attention.head_count_kv")


def _kept_from_start(keys: Keys, count: int) -> int:
    fixed = architectures.KV_FROM_START.get(keys.architecture, count)
    return max(0, min(fixed, count - keys.number("attention.shared_kv_layers")))


def _is_known_hybrid(keys: Keys) -> bool:
    name = keys.architecture
    return (
        name in architectures.RECURRENT_THROUGHOUT
        or name in architectures.RECURRENT_WHERE_NO_KV_HEADS
        or name in architectures.RECURRENT_WHERE_NO_KV_HEADS_NOR_FEED_FORWARD
        or name in architectures.ATTENTION_INTERVAL
    )


def _recurrent(keys: Keys, count: int) -> tuple[bool, ...]:
    name = keys.architecture
    if name in architectures.RECURRENT_THROUGHOUT or name in architectures.RECURRENT_AND_ATTENTIVE:
        return (True,) * count
    if name in architectures.ATTENTION_INTERVAL:
        return _recurrent_by_interval(keys, count)
    kv_heads = keys.per_layer("attention.head_count_kv", count, default=1)
    if name in architectures.RECURRENT_WHERE_NO_KV_HEADS:
        return tuple(number == 0 for number in kv_heads)
    if name in architectures.RECURRENT_WHERE_NO_KV_HEADS_NOR_FEED_FORWARD:
        widths = keys.per_layer("feed_forward_length", count)
        return tuple(heads == 0 and width == 0 for heads, width in zip(kv_heads, widths, strict=True))
    # An architecture of tomorrow that has a state: count one for each layer, besides its KV cache.
    return (_state_elements(keys) > 0,) * count


def _recurrent_by_interval(keys: Keys, count: int) -> tuple[bool, ...]:
    if keys.has("attention.recurrent_layers"):
        return tuple(number != 0 for number in keys.per_layer("attention.recurrent_layers", count))
    interval = keys.number("full_attention_interval", architectures.ATTENTION_INTERVAL[keys.architecture])
    return tuple((index + 1) % max(1, interval) != 0 for index in range(count))


def _state_elements(keys: Keys) -> int:
    """`n_embd_r() + n_embd_s()` of llama-hparams.cpp: what one recurrent layer keeps for one sequence."""
    width = keys.number("embedding_length")
    heads = max(1, keys.number("attention.head_count"))
    convolution = max(0, keys.number("ssm.conv_kernel") - 1)
    if size := keys.number("wkv.head_size"):
        return width * (keys.number("token_shift_count", 2) + size)
    if length := keys.number("shortconv.l_cache"):
        return width * (length - 1)
    if size := keys.number("kda.head_dim"):
        return 3 * (convolution or 3) * heads * size + size * size * heads
    if keys.architecture in architectures.LINEAR_ATTENTION_BY_KEY_LENGTH:
        return heads * keys.number("attention.key_length", width // heads) ** 2
    inner, state = keys.number("ssm.inner_size"), keys.number("ssm.state_size")
    return convolution * (inner + 2 * keys.number("ssm.group_count") * state) + state * inner


def _sliding(keys: Keys, count: int, recurrent: tuple[bool, ...]) -> tuple[int, tuple[bool, ...]]:
    """The window in tokens, and for each layer whether it looks back no further."""
    none = (0, (False,) * count)
    window = keys.number("attention.sliding_window")
    if keys.architecture in architectures.SLIDING_WHERE_NOT_RECURRENT:
        return (window, tuple(not state for state in recurrent)) if window else none
    if keys.architecture in architectures.SLIDING_BY_HEADER_ALONE:
        listed = keys.is_array("attention.sliding_window_pattern")
        return (window, _listed(keys, count)) if window and listed else none
    pattern = architectures.SLIDING.get(keys.architecture)
    if pattern is None or pattern.layers_only not in (0, count):
        return none
    window = _window(keys, pattern)
    return (window, _patterned(keys, pattern, count)) if window else none


def _window(keys: Keys, pattern: architectures.SlidingPattern) -> int:
    window = keys.number("attention.sliding_window", pattern.window_default)
    return pattern.window_fixed if window and pattern.window_fixed else window


def _listed(keys: Keys, count: int) -> tuple[bool, ...]:
    return tuple(number != 0 for number in keys.per_layer("attention.sliding_window_pattern", count))


def _patterned(keys: Keys, pattern: architectures.SlidingPattern, count: int) -> tuple[bool, ...]:
    if keys.is_array("attention.sliding_window_pattern"):
        return _listed(keys, count)
    period = keys.number("attention.sliding_window_pattern", pattern.period)
    if period == 0:
        return (True,) * count
    dense = 0 if pattern.dense_first else period - 1
    return tuple(index % period != dense for index in range(count))
