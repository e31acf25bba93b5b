"""How much memory one child of a split model takes: a remote stage, or the head with the last layers.

Held against real children by `tests/planner/test_stage_fit_against_engine.py`. What a child needs is a fixed
part and a part for each layer, so that planning can add up instead of asking again for every range.
"""

from bisect import bisect_left, bisect_right
from dataclasses import dataclass
from itertools import accumulate

from mesh_llm.core.quantities import MIB
from mesh_llm.core.stages import Cuttable, LayerRange
from mesh_llm.planner.memory import (
    FLOAT_BYTES,
    KV_TYPES,
    MemoryNeed,
    activation_bytes,
    attention_bytes,
    cache_bytes,
)

STAGE_PROCESS_BYTES = 47 * MIB
"""Python, numpy, the engine's library. Measured on Linux: 45 to 48 MiB after many steps, beside all that is
named below."""

HEAD_PROCESS_BYTES = 75 * MIB
"""With the HTTP server, templates and constraints. Measured on Linux: 69 to 79 MiB after many requests."""

TOKEN_BYTES = 240
"""Of the head's vocabulary: text, index, and what the heap loses when the header is read. Measured: 238."""

MERGE_BYTES = 270
"""Of a pair that its tokenizer joins. Measured: 268."""

STEPS_HELD = 4
"""Copies of a step's hidden states: read, computed, taken out of the graph, written."""


def predict_stage(
    model: Cuttable,
    layers: LayerRange,
    *,
    is_head: bool,
    context: int,
    kv_type: str,
    sequences: int,
    batch: int,
) -> MemoryNeed:
    """What the child takes at most, in bytes; `kv_type` is a key of `KV_TYPES`."""
    chosen = slice(layers.first, layers.end)
    facts = model.facts
    # A remote stage has a vocabulary of one, and its graph ends before the output head.
    logits = 2 * sequences * facts.vocabulary * FLOAT_BYTES if is_head else 0
    return MemoryNeed(
        weights=sum(model.layer_bytes[chosen]) + _beside_layers(model, is_head),
        kv_cache=sum(_caches(model, context, kv_type, sequences, batch)[chosen]),
        compute=logits
        + STEPS_HELD * batch * facts.embedding_length * FLOAT_BYTES
        + activation_bytes(facts, batch)
        + attention_bytes(facts, context, sequences, batch),
        checkpoints=0,
        prompt_cache=0,
        process=HEAD_PROCESS_BYTES + _tokenizer(model) if is_head else STAGE_PROCESS_BYTES,
    )


@dataclass(frozen=True, slots=True)
class StageCosts:
    """What children take for one context and KV type, between the borders where a stage may begin or end.

    Borders are counted from 0, which is layer 0; the last one is behind the last layer.
    """

    borders: tuple[int, ...]
    """Their layers."""
    held: tuple[int, ...]
    """Bytes that all layers before a border take: weights and caches."""
    read: tuple[int, ...]
    """Bytes of weights before a border: what a token has to wait for."""
    remote_bytes: int
    """Of a remote stage, beside its layers."""
    head_bytes: int
    head_read: int
    """That the head reads for a token beside its layers."""
    lengths_refused: frozenset[int] = frozenset()
    """As in `Cuttable`."""

    @property
    def end(self) -> int:
        """The border behind the last layer."""
        return len(self.borders) - 1

    @property
    def last_cut(self) -> int:
        """The last border at which the head may begin; 0 where it may nowhere but there."""
        return next(cut for cut in range(self.end - 1, -1, -1) if cut == 0 or self.is_legal(cut, self.end))

    def is_legal(self, start: int, end: int) -> bool:
        """Whether there may be a stage of the layers between two borders."""
        return self.borders[end] - self.borders[start] not in self.lengths_refused

    def reach(self, border: int, room: int, last: int) -> int:
        """Up to which border, at most `last`, a remote stage of any length comes in so many bytes; where it
        holds nothing that is `border`."""
        held = bisect_right(self.held, self.held[border] + room - self.remote_bytes) - 1
        return max(border, min(held, last))

    def shortest(self, border: int, least: int) -> int:
        """The first border from `least` on where a stage from `border` may end; `end` if there is none."""
        ends = range(max(least, border + 1), self.end)
        return next((end for end in ends if self.is_legal(border, end)), self.end)

    @property
    def smallest_need(self) -> int:
        """Of a remote stage."""
        pieces = ((start, self.shortest(start, start + 1)) for start in range(self.end - 1))
        return min(self.remote_need(*piece) for piece in pieces)

    def head_border(self, room: int) -> int:
        """From which border on the head can hold all layers in so many bytes."""
        return bisect_left(self.held, self.held[-1] + self.head_bytes - room)

    def remote_need(self, start: int, end: int) -> int:
        return self.remote_bytes + self.held[end] - self.held[start]

    def head_need(self, start: int) -> int:
        return self.head_bytes + self.held[-1] - self.held[start]


def stage_costs(model: Cuttable, *, context: int, kv_type: str, sequences: int, batch: int) -> StageCosts:
    """The sums that `predict_stage` would give for every legal range."""
    caches = _caches(model, context, kv_type, sequences, batch)
    layers = [weights + cache for weights, cache in zip(model.layer_bytes, caches, strict=True)]
    borders = (0, *model.cuts, len(layers))
    held, read = (list(accumulate(sizes, initial=0)) for sizes in (layers, model.layer_bytes))
    first = LayerRange(0, 1)

    def fixed(is_head: bool) -> int:
        need = predict_stage(
            model,
            first,
            is_head=is_head,
            context=context,
            kv_type=kv_type,
            sequences=sequences,
            batch=batch,
        )
        return need.total - layers[0]

    return StageCosts(
        borders,
        tuple(held[border] for border in borders),
        tuple(read[border] for border in borders),
        fixed(is_head=False),
        fixed(is_head=True),
        model.output_bytes,
        frozenset(model.lengths_refused),
    )


def stages_max(model: Cuttable) -> int:
    """Into how many stages it can be cut, memory apart; 0 where every cut leaves a length that is refused."""
    most = {0: 0}
    for end in (*model.cuts, len(model.layer_bytes)):
        so_far = [count for start, count in most.items() if end - start not in model.lengths_refused]
        if so_far:
            most[end] = max(so_far) + 1
    return most.get(len(model.layer_bytes), 0)


def _beside_layers(model: Cuttable, is_head: bool) -> int:
    """Of the token embedding single rows are looked up, but over many prompts any page may be among them."""
    return model.output_bytes + model.embedding_bytes if is_head else 0


def _tokenizer(model: Cuttable) -> int:
    """Without word of its merges: as many as tokens, as most have."""
    tokens = model.facts.vocabulary
    return TOKEN_BYTES * tokens + MERGE_BYTES * (tokens if model.merges is None else model.merges)


def _caches(model: Cuttable, context: int, kv_type: str, sequences: int, batch: int) -> tuple[int, ...]:
    """Of each layer: KV cache, or the state of a recurrent layer for each sequence."""
    facts = model.facts
    caches = cache_bytes(facts, context, KV_TYPES[kv_type], sequences, batch)
    recurrent = facts.kv_heads.count(0)
    state = -(-facts.recurrent_bytes // recurrent) * sequences if recurrent else 0
    return tuple(cache if heads else state for heads, cache in zip(facts.kv_heads, caches, strict=True))
