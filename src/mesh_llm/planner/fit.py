"""How much memory a model needs, and which context and KV type fit into what there is.

Pure arithmetic over `ModelFacts`. The formulas are llama.cpp's own (b11549, source named at each) and are
held against a real engine by `tests/planner/test_fit_against_engine.py`. What a machine has, and which part
of it may be used, is not known here.
"""

from dataclasses import dataclass, replace

from mesh_llm.core.errors import DoesNotFit, RequestRefused
from mesh_llm.core.model import ModelFacts
from mesh_llm.core.quantities import MIB, human_bytes


@dataclass(frozen=True, slots=True)
class KvType:
    """How keys and values are stored: `block_bytes` for each `block_elements`."""

    name: str
    block_elements: int
    block_bytes: int


KV_TYPES: dict[str, KvType] = {
    "f16": KvType("f16", 1, 2),
    "q8_0": KvType("q8_0", 32, 34),
    "q4_0": KvType("q4_0", 32, 18),
}
"""Best first. Sizes: ggml-common.h. Per element 2, 1.06 and 0.56 bytes."""

CONTEXT_MAX = 65_536
"""Without `--ctx-size`: more is rarely used and costs start-up time, since the cache is written at load."""

CONTEXT_MIN = 4096
"""Less is of no use to a chat with tools. A user may ask for less; a model may have been trained for less."""

CONTEXT_COMFORTABLE = 16_384
"""An agent's instructions and tools, a few files, and room to work. Up to here a longer context is worth more
than f16 keys and values, beyond it they come first."""

LOSSY_KV = frozenset({"q4_0"})
"""Only where nothing better lets the model run at all: answers change."""

CONTEXT_STEP = 1024

CONTEXT_IN_ONE_BATCH = 2048
"""Default for models that embed a text in one piece: their compute buffers grow with all of it."""

BATCH = 256
"""Tokens of a prompt that are computed at once: the others wait that long (measured: 3 s on two cores)."""

BATCH_ON_DEVICES = 512
"""llama.cpp's own physical batch; a GPU computes it in milliseconds."""

CHECKPOINTS_PER_SLOT = 4
"""Saved states of what cannot be rolled back, for sliding windows and recurrent layers. The engine must be
told (`n_ctx_checkpoints`): its own 32 may take 1.4 GB for Gemma 3 270M with four slots."""

PROMPT_CACHE_BYTES_MAX = 512 * MIB
"""The engine's own default of 8 GiB would not fit most machines; this holds several long chats."""

PROCESS_BYTES = 56 * MIB
"""Python, the engine's library, HTTP threads. Measured on Linux: 46 MiB when idle, 55 after many requests,
beside all that is named below."""

VOCABULARY_ENTRY_BYTES = 192
"""Token texts, their index and merges. Measured: 185 (49,152 and 262,144 tokens)."""

CELLS_STEP = 256
"""llama-context.cpp and llama-kv-cache-iswa.cpp pad the number of cells to it."""

WITHOUT_FLASH_ATTENTION = frozenset({"grok"})
"""llama-context.cpp, `llama_init_from_model`: forced off. Then values cannot be quantised."""

_FLOAT_BYTES = 4
_MASK_BYTES = 2


@dataclass(frozen=True, slots=True)
class MemoryNeed:
    """Bytes that one engine takes at most."""

    weights: int
    """Mapped, but all of them are read for each token. Blocks that the CPU backend stores a second time in
    another order count once: their mapped pages are clean and never read again."""
    kv_cache: int
    """With recurrent states."""
    compute: int
    """Graph and logits."""
    checkpoints: int
    prompt_cache: int
    process: int

    @property
    def total(self) -> int:
        held = self.weights + self.kv_cache + self.compute
        return held + self.checkpoints + self.prompt_cache + self.process


@dataclass(frozen=True, slots=True)
class Wish:
    """What somebody asked for; None leaves it to `fit`."""

    context: int | None = None
    """Tokens of `--ctx-size`."""
    slots: int = 4
    batch: int = BATCH


@dataclass(frozen=True, slots=True)
class Fit:
    """How to run a model so that it needs no more than `need`."""

    context: int
    """Tokens in all, shared by the slots; one request may use them all."""
    kv_type: str
    slots: int
    batch: int
    """For `n_batch` and `n_ubatch`."""
    prompt_cache_bytes: int
    """A multiple of a MiB; 0 turns the cache off."""
    checkpoints: int
    """For `n_ctx_checkpoints`."""
    embeddings: bool
    """Whether the engine also embeds: it then keeps logits of a whole batch, 0.5 GB for 262,144 tokens."""
    need: MemoryNeed


def predict(
    facts: ModelFacts,
    context: int,
    kv_type: str,
    slots: int,
    *,
    embeddings: bool = True,
    prompt_cache_bytes: int = 0,
    batch: int = BATCH,
) -> MemoryNeed:
    """What an engine with these settings takes at most, in bytes; `kv_type` is a key of `KV_TYPES`."""
    batch = batch_for(facts, context, batch)
    return MemoryNeed(
        weights=facts.weights_bytes,
        kv_cache=_kv_cache(facts, context, KV_TYPES[kv_type], slots, batch),
        compute=_compute(facts, context, slots, batch, embeddings),
        checkpoints=_checkpoints(facts, context, KV_TYPES[kv_type], slots, batch),
        prompt_cache=prompt_cache_bytes,
        process=PROCESS_BYTES + VOCABULARY_ENTRY_BYTES * facts.vocabulary,
    )


def fit(facts: ModelFacts, budget_bytes: int, wish: Wish) -> Fit:
    """The first of `_candidates` that the budget holds; what is left goes to embeddings and a prompt cache.

    Raises DoesNotFit with what is needed and what there is, RequestRefused for a context beyond the model's.
    """
    for kv_type, context in _candidates(facts, wish):
        if _bare(facts, context, kv_type, wish).total <= budget_bytes:
            return _fitted(facts, context, kv_type, wish, budget_bytes)
    shortest = _contexts(facts, wish)[-1]
    raise DoesNotFit(_shortfall(least(facts, wish), shortest, budget_bytes, wish))


def least(facts: ModelFacts, wish: Wish) -> MemoryNeed:
    """The smallest need that `fit` accepts. Raises RequestRefused for a context beyond the model's."""
    return _bare(facts, _contexts(facts, wish)[-1], kv_types_for(facts)[-1], wish)


def batch_for(facts: ModelFacts, context: int, batch: int) -> int:
    """Tokens computed at once. A text that is pooled in one piece must be in one batch (`can_split`)."""
    return context if facts.pooling in ("mean", "cls", "rank") else min(batch, context)


def kv_types_for(facts: ModelFacts) -> tuple[str, ...]:
    """The KV types that the engine accepts for this model, best first.

    Quantised ones need flash attention, and heads that are whole blocks (llama-context.cpp,
    `llama_init_from_model`).
    """
    if not any(facts.kv_heads):
        return ("f16",)
    lengths = (facts.key_length, facts.value_length, *_sliding_lengths(facts), facts.indexer_length)
    flash = facts.architecture not in WITHOUT_FLASH_ATTENTION
    return tuple(
        name
        for name, kind in KV_TYPES.items()
        if kind.block_elements == 1
        or (flash and all(length % kind.block_elements == 0 for length in lengths))
    )


def _candidates(facts: ModelFacts, wish: Wish) -> list[tuple[str, int]]:
    """(KV type, context), best first."""
    contexts = _contexts(facts, wish)
    comfortable = min(contexts[0], CONTEXT_COMFORTABLE)
    types = kv_types_for(facts)
    gentle = [kv_type for kv_type in types if kv_type not in LOSSY_KV]
    return [
        *((kv_type, context) for kv_type in gentle for context in contexts if context >= comfortable),
        *((gentle[-1], context) for context in contexts if context < comfortable),
        *((kv_type, context) for kv_type in types if kv_type in LOSSY_KV for context in contexts),
    ]


def _contexts(facts: ModelFacts, wish: Wish) -> tuple[int, ...]:
    """Contexts to try, longest first."""
    trained = facts.context_length
    if wish.context is not None:
        if 0 < trained < wish.context:
            raise RequestRefused(
                f"A context of {wish.context} tokens was asked for, the model was trained for {trained}:"
                f" use --ctx-size {trained} or less.",
                parameter="ctx_size",
            )
        return (wish.context,)
    in_one_batch = batch_for(facts, CONTEXT_MAX, BATCH) == CONTEXT_MAX
    limit = CONTEXT_IN_ONE_BATCH if in_one_batch else CONTEXT_MAX
    longest = min(trained or CONTEXT_MIN, limit)
    steps = range(longest // CONTEXT_STEP * CONTEXT_STEP, min(CONTEXT_MIN, longest) - 1, -CONTEXT_STEP)
    return tuple(dict.fromkeys((longest, *steps)))


def _bare(facts: ModelFacts, context: int, kv_type: str, wish: Wish) -> MemoryNeed:
    """What answering takes, without what is only good to have."""
    embeds = facts.pooling is not None
    return predict(facts, context, kv_type, wish.slots, embeddings=embeds, batch=wish.batch)


def _fitted(facts: ModelFacts, context: int, kv_type: str, wish: Wish, budget_bytes: int) -> Fit:
    embedding = predict(facts, context, kv_type, wish.slots, embeddings=True, batch=wish.batch)
    embeds = embedding.total <= budget_bytes
    need = embedding if embeds else _bare(facts, context, kv_type, wish)
    # As much again as the KV cache holds: every slot may then change its chat once and come back.
    cache = min(budget_bytes - need.total, need.kv_cache, PROMPT_CACHE_BYTES_MAX) // MIB * MIB
    return Fit(
        context=context,
        kv_type=kv_type,
        slots=wish.slots,
        batch=batch_for(facts, context, wish.batch),
        prompt_cache_bytes=cache,
        checkpoints=CHECKPOINTS_PER_SLOT if need.checkpoints else 0,
        embeddings=embeds,
        need=replace(need, prompt_cache=cache),
    )


def _shortfall(smallest: MemoryNeed, context: int, budget_bytes: int, wish: Wish) -> str:
    cure = "a smaller --ctx-size, " if wish.context is not None and wish.context > CONTEXT_MIN else ""
    return (
        f"The model needs {human_bytes(smallest.total)} at least: {human_bytes(smallest.weights)} of weights,"
        f" {human_bytes(smallest.kv_cache)} for a context of {context} tokens, the rest to compute."
        f" {human_bytes(max(0, budget_bytes))} are available. Choose {cure}a smaller model or a smaller"
        " quantisation of it, give fewer --parallel, or free memory."
    )


def _sliding_lengths(facts: ModelFacts) -> tuple[int, int]:
    return (
        facts.key_length_sliding or facts.key_length,
        facts.value_length_sliding or facts.value_length,
    )


def _padded(count: int, step: int) -> int:
    return -(-count // step) * step


def _row_bytes(elements: int, kind: KvType) -> int:
    return _padded(elements, kind.block_elements) // kind.block_elements * kind.block_bytes


def _layer_bytes(facts: ModelFacts, kind: KvType) -> tuple[int, int]:
    """Bytes of one cell over all layers that see everything, and over all sliding ones."""
    full = sliding = 0
    sliding_key, sliding_value = _sliding_lengths(facts)
    for heads, slides in zip(facts.kv_heads, facts.sliding_layers, strict=True):
        if slides:
            sliding += _row_bytes(sliding_key * heads, kind) + _row_bytes(sliding_value * heads, kind)
        else:
            full += _row_bytes(facts.key_length * heads, kind) + _row_bytes(facts.value_length * heads, kind)
            full += _row_bytes(facts.indexer_length, kind) if heads else 0
    return full, sliding


def _sliding_cells(facts: ModelFacts, context: int, slots: int, batch: int) -> int:
    """llama-kv-cache-iswa.cpp, `size_swa`, for a cache that all slots share (`kv_unified`)."""
    return _padded(min(context, facts.sliding_window * max(1, slots) + batch), CELLS_STEP)


def _kv_cache(facts: ModelFacts, context: int, kind: KvType, slots: int, batch: int) -> int:
    full, sliding = _layer_bytes(facts, kind)
    attended = _padded(context, CELLS_STEP) * full
    windows = _sliding_cells(facts, context, slots, batch) * sliding
    return attended + windows + facts.recurrent_bytes * max(1, slots)


def _checkpoints(facts: ModelFacts, context: int, kind: KvType, slots: int, batch: int) -> int:
    """server-context.cpp, `create_checkpoint`: what one sequence has in windows and recurrent states."""
    _, sliding = _layer_bytes(facts, kind)
    window = sliding * min(context, facts.sliding_window + batch)
    return (window + facts.recurrent_bytes) * max(1, slots) * CHECKPOINTS_PER_SLOT


def _compute(facts: ModelFacts, context: int, slots: int, batch: int, embeddings: bool) -> int:
    """The graph's buffer and the output buffer (llama-context.cpp, `graph_reserve` and `output_reserve`).

    An engine that embeds reserves logits of a whole batch in both, and touches both with the first embedding.
    """
    generates = any(facts.kv_heads) or facts.recurrent_bytes > 0
    outputs = batch if embeddings or not generates else max(1, slots)
    logits = outputs * facts.vocabulary * _FLOAT_BYTES if generates else 0
    embedded = outputs * facts.embedding_length * _FLOAT_BYTES
    return 2 * logits + embedded + _activations(facts, batch) + _attention(facts, context, slots, batch)


def _activations(facts: ModelFacts, batch: int) -> int:
    """What a layer has in hand at once; three and eight are the least whole numbers above the measured."""
    feed_forward = facts.feed_forward_length or 4 * facts.embedding_length
    attention = max(facts.embedding_length, facts.heads * facts.key_length)
    return batch * _FLOAT_BYTES * (3 * feed_forward + 8 * attention)


def _attention(facts: ModelFacts, context: int, slots: int, batch: int) -> int:
    """Masks, one for each kind of cache; without flash attention also scores of every head."""
    cells = _padded(context, CELLS_STEP)
    if facts.architecture in WITHOUT_FLASH_ATTENTION:
        return batch * cells * _FLOAT_BYTES * (facts.heads + 1)
    sliding = _sliding_cells(facts, context, slots, batch) if any(facts.sliding_layers) else 0
    return batch * (cells + sliding) * _MASK_BYTES
