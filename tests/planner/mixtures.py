"""Mixtures of experts, invented for planning."""

from dataclasses import replace

from mesh_llm.core.experts import ExpertRanking, ExpertShape
from mesh_llm.core.quantities import GIB, MIB
from mesh_llm.planner.expert_plan import Mixture
from tests.planner.cuttable import FACTS


def mixture(
    experts: int = 128,
    used: int = 8,
    *,
    groups: int = 1,
    groups_used: int = 1,
    expert_mib: int = 128,
    layers: int = 48,
) -> Mixture:
    """As large as Qwen3-30B-A3B in 4 bits if not told otherwise: 17 GiB, of which 1 is the trunk."""
    shape = ExpertShape(experts, used, tuple(range(layers)), groups, groups_used)
    trunk, each = GIB, expert_mib * MIB
    facts = replace(
        FACTS,
        architecture="qwen3moe",
        embedding_length=2048,
        weights_bytes=trunk + experts * each,
        kv_heads=(4,) * layers,
        sliding_layers=(False,) * layers,
        context_length=40_960,
        heads=32,
        feed_forward_length=8 * 768,
        experts=experts,
        experts_used=used,
    )
    return Mixture(facts, shape, trunk, each)


def ranking(shape: ExpertShape) -> ExpertRanking:
    """Another order in each layer: 7 is odd, so its multiples meet every expert of a power of two."""
    lists = {
        layer: tuple((7 * place + 11 * layer) % shape.experts for place in range(shape.experts))
        for layer in shape.layers
    }
    return ExpertRanking.of(lists, "invented")
