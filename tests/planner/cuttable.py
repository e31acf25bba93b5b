"""Models that can be cut, invented for planning."""

from dataclasses import replace

from mesh_llm.core.model import ModelFacts
from mesh_llm.core.quantities import GIB, MIB
from mesh_llm.core.stages import Cuttable

FACTS = ModelFacts(
    architecture="llama",
    parameters=70_000_000_000,
    quantisation="Q4_K_M",
    context_length=131_072,
    embedding_length=8192,
    vocabulary=128_256,
    weights_bytes=0,
    kv_heads=(),
    key_length=128,
    value_length=128,
    sliding_window=0,
    sliding_layers=(),
    recurrent_bytes=0,
    experts=0,
    experts_used=0,
    chat_template=None,
    pooling=None,
    heads=64,
    feed_forward_length=28_672,
)


def cuttable(
    layers: int = 80,
    layer_bytes: int = 512 * MIB,
    *,
    period: int = 1,
    sizes: tuple[int, ...] = (),
    output_bytes: int = GIB,
) -> Cuttable:
    """Cut at multiples of the period; `sizes`: of each layer, where they differ."""
    weights = sizes or (layer_bytes,) * layers
    facts = replace(
        FACTS,
        weights_bytes=sum(weights) + output_bytes,
        kv_heads=(8,) * len(weights),
        sliding_layers=(False,) * len(weights),
    )
    return Cuttable(facts, weights, output_bytes, 0, tuple(range(period, len(weights), period)))
