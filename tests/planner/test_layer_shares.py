"""Layers go where they are read quickly, within memory, at legal cuts."""

from collections.abc import Sequence
from dataclasses import replace
from itertools import combinations, pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesh_llm.core.quantities import GIB, MIB
from mesh_llm.planner.layer_shares import seconds, shares
from mesh_llm.planner.stage_fit import StageCosts, stage_costs
from tests.planner.cuttable import cuttable

PLENTY = 1 << 50


def costs_of(sizes: tuple[int, ...], output_bytes: int = 0) -> StageCosts:
    model = cuttable(sizes=sizes, output_bytes=output_bytes)
    return stage_costs(model, context=4096, kv_type="f16", sequences=1, batch=256)


def dealt(costs: StageCosts, rooms: Sequence[int], speeds: Sequence[float]) -> tuple[int, ...]:
    starts = shares(costs, rooms, speeds)
    assert starts is not None
    return starts


def counts(costs: StageCosts, starts: tuple[int, ...]) -> list[int]:
    return [end - start for start, end in pairwise((*starts, len(costs.borders) - 1))]


def test_equal_nodes_get_equal_shares() -> None:
    costs = costs_of((GIB,) * 12)
    assert counts(costs, dealt(costs, (PLENTY,) * 3, (1.0,) * 3)) == [4, 4, 4]


def test_the_output_head_counts_for_decode_and_not_for_prefill() -> None:
    costs = costs_of((GIB,) * 24, output_bytes=6 * GIB)
    dealt_out = counts(costs, dealt(costs, (PLENTY,) * 2, (1.0,) * 2))
    assert dealt_out == [13, 11], "between 12 each, equal in prefill, and 15 and 9, equal in decode"


def test_a_slightly_slower_node_still_gets_nearly_half() -> None:
    costs = costs_of((GIB,) * 40)
    assert counts(costs, dealt(costs, (PLENTY,) * 2, (1.05, 1.0))) == [21, 19]


def test_a_much_slower_node_gets_little() -> None:
    costs = costs_of((GIB,) * 34)
    starts = dealt(costs, (PLENTY,) * 2, (4.0, 1.0))
    assert counts(costs, starts) == [32, 2]
    assert seconds(costs, starts, (4.0, 1.0)) == 32 * GIB / 4 + 2 * GIB


def test_each_stage_gets_something() -> None:
    costs = costs_of((GIB,) * 4)
    assert counts(costs, dealt(costs, (PLENTY,) * 4, (1.0, 1e-9, 1.0, 1e-9))) == [1, 1, 1, 1]


def test_who_cannot_hold_it_gets_no_share() -> None:
    assert shares(costs_of((GIB,) * 4), (GIB, GIB), (1.0, 1.0)) is None


def test_no_stage_gets_a_number_of_layers_that_is_refused() -> None:
    model = replace(cuttable(sizes=(GIB,) * 12, output_bytes=0), lengths_refused=(6, 7))
    costs = stage_costs(model, context=4096, kv_type="f16", sequences=1, batch=256)
    assert counts(costs, dealt(costs, (PLENTY,) * 2, (1.0,) * 2)) in ([8, 4], [4, 8])


@given(
    st.lists(st.integers(1, 9), min_size=3, max_size=8),
    st.lists(st.tuples(st.integers(2, 40), st.sampled_from([1.0, 1.5, 4.0])), min_size=2, max_size=3),
)
def test_no_other_cut_within_memory_has_less_squares(sizes: list[int], nodes) -> None:
    costs = costs_of(tuple(size * 128 * MIB for size in sizes), output_bytes=128 * MIB)
    rooms, speeds = [room * 128 * MIB for room, _ in nodes], [speed for _, speed in nodes]
    possible = [
        (0, *cuts)
        for cuts in combinations(range(1, len(sizes)), len(nodes) - 1)
        if are_within(costs, (0, *cuts), rooms)
    ]
    if not possible:
        return
    least = min(squares(costs, starts, speeds) for starts in possible)
    assert squares(costs, dealt(costs, rooms, speeds), speeds) == pytest.approx(least)


def are_within(costs: StageCosts, starts: tuple[int, ...], rooms: list[int]) -> bool:
    remote = [costs.remote_need(*ends) <= room for ends, room in zip(pairwise(starts), rooms, strict=False)]
    return all(remote) and costs.head_need(starts[-1]) <= rooms[-1]


def squares(costs: StageCosts, starts: tuple[int, ...], speeds: list[float]) -> float:
    reads = [costs.read[end] - costs.read[start] for start, end in pairwise((*starts, len(costs.read) - 1))]
    prefill = sum((read / speed) ** 2 for read, speed in zip(reads, speeds, strict=True))
    reads[-1] += costs.head_read
    decode = sum((read / speed) ** 2 for read, speed in zip(reads, speeds, strict=True))
    return 2 * prefill + decode
