"""What llama.cpp allocates for a model: its caches and buffers, whoever runs it.

Pure arithmetic over `ModelFacts`. The formulas are llama.cpp's own (b11549, source named at each). `fit.py`
makes whole engines of them, `stage_fit.py` the children of a split model; both are held against real ones.
"""

from dataclasses import dataclass

from mesh_llm.core.model import ModelFacts


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

VOCABULARY_ENTRY_BYTES = 192
"""Token texts, their index and merges. Measured: 185 (49,152 and 262,144 tokens)."""

CELLS_STEP = 256
"""llama-context.cpp and llama-kv-cache-iswa.cpp pad the number of cells to it."""

WITHOUT_FLASH_ATTENTION = frozenset({"grok"})
"""llama-context.cpp, `llama_init_from_model`: forced off. Then values cannot be quantised."""

FLOAT_BYTES = 4
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


def cell_bytes(facts: ModelFacts, kind: KvType) -> tuple[int, ...]:
    """Of one cell of the KV cache in each layer."""
    sliding_key, sliding_value = sliding_lengths(facts)
    sizes = {
        (heads, slides): _row_bytes(sliding_key * heads, kind) + _row_bytes(sliding_value * heads, kind)
        if slides
        else _row_bytes(facts.key_length * heads, kind)
        + _row_bytes(facts.value_length * heads, kind)
        + (_row_bytes(facts.indexer_length, kind) if heads else 0)
        for heads, slides in set(zip(facts.kv_heads, facts.sliding_layers, strict=True))
    }
    return tuple(sizes[layer] for layer in zip(facts.kv_heads, facts.sliding_layers, strict=True))


def cache_bytes(facts: ModelFacts, context: int, kind: KvType, slots: int, batch: int) -> tuple[int, ...]:
    """Of each layer's KV cache, which all slots share (`kv_unified`); recurrent states come beside it."""
    attended = _padded(context, CELLS_STEP)
    windows = _sliding_cells(facts, context, slots, batch)
    return tuple(
        size * (windows if slides else attended)
        for size, slides in zip(cell_bytes(facts, kind), facts.sliding_layers, strict=True)
    )


def window_bytes(facts: ModelFacts, context: int, kind: KvType, batch: int) -> int:
    """What the sliding layers hold for one sequence, all together."""
    sizes = zip(cell_bytes(facts, kind), facts.sliding_layers, strict=True)
    return sum(size for size, slides in sizes if slides) * min(context, facts.sliding_window + batch)


def activation_bytes(facts: ModelFacts, batch: int) -> int:
    """What a layer has in hand at once; three and eight are the least whole numbers above the measured."""
    feed_forward = facts.feed_forward_length or 4 * facts.embedding_length
    attention = max(facts.embedding_length, facts.heads * facts.key_length)
    return batch * FLOAT_BYTES * (3 * feed_forward + 8 * attention)


def attention_bytes(facts: ModelFacts, context: int, slots: int, batch: int) -> int:
    """Masks, one for each kind of cache; without flash attention also scores of every head."""
    cells = _padded(context, CELLS_STEP)
    if facts.architecture in WITHOUT_FLASH_ATTENTION:
        return batch * cells * FLOAT_BYTES * (facts.heads + 1)
    sliding = _sliding_cells(facts, context, slots, batch) if any(facts.sliding_layers) else 0
    return batch * (cells + sliding) * _MASK_BYTES


def sliding_lengths(facts: ModelFacts) -> tuple[int, int]:
    """Of keys and values in sliding layers."""
    return (
        facts.key_length_sliding or facts.key_length,
        facts.value_length_sliding or facts.value_length,
    )


def _sliding_cells(facts: ModelFacts, context: int, slots: int, batch: int) -> int:
    """llama-kv-cache-iswa.cpp, `size_swa`, for a cache that all slots share."""
    return _padded(min(context, facts.sliding_window * max(1, slots) + batch), CELLS_STEP)


def _padded(count: int, step: int) -> int:
    return -(-count // step) * step


def _row_bytes(elements: int, kind: KvType) -> int:
    return _padded(elements, kind.block_elements) // kind.block_elements * kind.block_bytes
