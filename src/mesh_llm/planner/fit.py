"""How much memory a model needs, and which context and KV type fit into what there is.

Pure arithmetic over `ModelFacts`, on the formulas of `memory.py`; held against a real engine by
`tests/planner/test_fit_against_engine.py`. What a machine has, and which part of it may be used, is not known
here.
"""

from dataclasses import dataclass, replace

from mesh_llm.core.errors import DoesNotFit, RequestRefused
from mesh_llm.core.model import ModelFacts
from mesh_llm.core.quantities import MIB, human_bytes
from mesh_llm.planner.memory import (
    FLOAT_BYTES,
    KV_TYPES,
    VOCABULARY_ENTRY_BYTES,
    WITHOUT_FLASH_ATTENTION,
    KvType,
    MemoryNeed,
    activation_bytes,
    attention_bytes,
    cache_bytes,
    sliding_lengths,
    window_bytes,
)

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
    """The first of `choices` that the budget holds; what is left goes to embeddings and a prompt cache.

    Raises DoesNotFit with what is needed and what there is, RequestRefused for a context beyond the model's.
    """
    for kv_type, context in choices(facts, wish):
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
    lengths = (facts.key_length, facts.value_length, *sliding_lengths(facts), facts.indexer_length)
    flash = facts.architecture not in WITHOUT_FLASH_ATTENTION
    return tuple(
        name
        for name, kind in KV_TYPES.items()
        if kind.block_elements == 1
        or (flash and all(length % kind.block_elements == 0 for length in lengths))
    )


def choices(facts: ModelFacts, wish: Wish) -> list[tuple[str, int]]:
    """(KV type, context) that may be tried, best first; of one type the longest context first.

    Raises RequestRefused for a context beyond the model's.
    """
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


def _kv_cache(facts: ModelFacts, context: int, kind: KvType, slots: int, batch: int) -> int:
    return sum(cache_bytes(facts, context, kind, slots, batch)) + facts.recurrent_bytes * max(1, slots)


def _checkpoints(facts: ModelFacts, context: int, kind: KvType, slots: int, batch: int) -> int:
    """server-context.cpp, `create_checkpoint`: what one sequence has in windows and recurrent states."""
    state = window_bytes(facts, context, kind, batch) + facts.recurrent_bytes
    return state * max(1, slots) * CHECKPOINTS_PER_SLOT


def _compute(facts: ModelFacts, context: int, slots: int, batch: int, embeddings: bool) -> int:
    """The graph's buffer and the output buffer (llama-context.cpp, `graph_reserve` and `output_reserve`).

    An engine that embeds reserves logits of a whole batch in both, and touches both with the first embedding.
    """
    generates = any(facts.kv_heads) or facts.recurrent_bytes > 0
    outputs = batch if embeddings or not generates else max(1, slots)
    logits = outputs * facts.vocabulary * FLOAT_BYTES if generates else 0
    embedded = outputs * facts.embedding_length * FLOAT_BYTES
    return (
        2 * logits + embedded + activation_bytes(facts, batch) + attention_bytes(facts, context, slots, batch)
    )
