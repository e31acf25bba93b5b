"""The search for rings stays within its bounds, whatever the view."""

from random import Random

from hypothesis import given, settings
from hypothesis import strategies as st

from mesh_llm.core.quantities import GIB
from mesh_llm.planner.rings import PATHS_MAX, Ground, fewest, grown, holds, quickest, roomiest
from mesh_llm.planner.stage_fit import stage_costs
from tests.planner.cuttable import cuttable

COSTS = stage_costs(cuttable(200), context=4096, kv_type="f16", sequences=4, batch=256)


def ground_of(chance: Random, nodes: int, room: int = 8) -> Ground:
    delays = [[0.0] * nodes for _ in range(nodes)]
    for one in range(nodes):
        for other in range(one):
            delays[one][other] = delays[other][one] = chance.choice([0.001, 0.02, 0.04])
    return Ground(
        tuple(chance.randint(2, room) * GIB for _ in range(nodes)),
        tuple(chance.choice([1e10, 5e10]) for _ in range(nodes)),
        tuple(map(tuple, delays)),
    )


def test_among_64_nodes_a_step_looks_at_a_bounded_number_of_paths() -> None:
    ground = ground_of(Random(1), 64, room=3)
    for rank in (roomiest, quickest(ground, COSTS, 60)):
        steps = list(grown(ground, COSTS, rank))
        assert len(steps) == 64
        assert all(len(paths) * ground.nodes <= PATHS_MAX for paths in steps)
        assert max(len(paths) for paths in steps) == PATHS_MAX // 64


@settings(max_examples=30)
@given(st.randoms(use_true_random=False), st.integers(2, 16))
def test_a_ring_that_was_found_holds_the_model_with_no_node_twice(chance: Random, nodes: int) -> None:
    ground = ground_of(chance, nodes, room=60)
    for ring in fewest(ground, COSTS):
        assert holds(ground, COSTS, ring)
        assert len(set(ring.hosts)) == len(ring.hosts) and 0 not in ring.hosts
