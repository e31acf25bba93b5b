"""Which experts each node keeps: sentences first, then what must hold for every set of nodes."""

from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesh_llm.core.experts import ExpertLayout, ExpertShape, Kept, best
from mesh_llm.core.ids import NodeId
from mesh_llm.planner.expert_deal import core_of, dealt, kept_beside
from tests.planner.mixtures import ranking

SHAPES = (
    ExpertShape(16, 4, (0, 1, 2)),
    ExpertShape(64, 8, (1, 2, 5)),
    ExpertShape(32, 4, (0, 3), groups=4, groups_used=2),
)
BOTH: tuple[ExpertLayout, ...] = ("best", "shared")


def node(number: int) -> NodeId:
    return NodeId(f"{number:064x}")


@st.composite
def nodes(draw: st.DrawFn, most: int = 6) -> tuple[ExpertShape, dict[NodeId, int]]:
    shape = draw(st.sampled_from(SHAPES))
    counts = st.integers(shape.fewest // shape.step, shape.experts // shape.step)
    drawn = draw(st.dictionaries(st.integers(0, 10**6), counts, min_size=1, max_size=most))
    return shape, {node(number): count * shape.step for number, count in drawn.items()}


def moved(one: Kept, other: Kept) -> int:
    """Experts that the second has and the first has not, in the first layer; all layers alike."""
    layer = min(one.by_layer)
    return len(set(other.by_layer[layer]) - set(one.by_layer[layer]))


def held(shape: ExpertShape, lists: dict[NodeId, Kept], layer: int) -> set[int]:
    return {expert for kept in lists.values() for expert in kept.by_layer[layer]}


def test_the_best_layout_gives_nodes_of_one_size_the_same_file():
    shape = SHAPES[0]
    lists = dealt(shape, ranking(shape), {node(1): 12, node(2): 12, node(3): 8}, "best")
    assert lists[node(1)] == lists[node(2)] == best(ranking(shape), 12, shape)
    assert lists[node(3)] == best(ranking(shape), 8, shape)


def test_the_shared_layout_has_the_better_half_everywhere_and_every_expert_somewhere():
    shape = SHAPES[0]
    lists = dealt(shape, ranking(shape), {node(1): 12, node(2): 12}, "shared")
    core = best(ranking(shape), 8, shape)
    for layer in shape.layers:
        assert all(set(core.by_layer[layer]) <= set(kept.by_layer[layer]) for kept in lists.values())
        assert held(shape, lists, layer) == set(range(16))


def test_what_no_cut_of_the_model_can_hold_is_not_believed_of_a_member():
    shape = SHAPES[0]
    others = {node(2): 12}
    alone, together = [
        kept_beside(told, node(1), 12, shape, ranking(shape), "shared") for told in ({}, others)
    ]
    assert alone != together
    for said in (0, 1, shape.experts + 1, 2**63, -12):
        told = others | {node(3): said, node(1): said}
        assert kept_beside(told, node(1), 12, shape, ranking(shape), "shared") == together


def test_a_node_too_small_for_the_core_keeps_the_best_of_it():
    shape = SHAPES[0]
    lists = dealt(shape, ranking(shape), {node(1): 6, node(2): 12}, "shared")
    assert lists[node(1)] == best(ranking(shape), 6, shape)


def test_what_all_nodes_together_have_no_room_for_is_the_last_of_the_ranking():
    shape = SHAPES[0]
    alone = dealt(shape, ranking(shape), {node(1): 12}, "shared")
    assert alone[node(1)] == best(ranking(shape), 12, shape)
    lists = dealt(shape, ranking(shape), {node(1): 10, node(2): 12}, "shared")
    for layer, ids in best(ranking(shape), 14, shape).by_layer.items():
        assert held(shape, lists, layer) == set(ids)


def test_a_node_that_joins_a_shared_layout_moves_few_experts_of_the_others():
    shape = ExpertShape(128, 8, (0, 1))
    counts = {node(number): 80 for number in range(6)}
    before = dealt(shape, ranking(shape), counts, "shared")
    after = dealt(shape, ranking(shape), counts | {node(9): 80}, "shared")
    of_others = [moved(before[each], after[each]) for each in counts]
    assert 0 < sum(of_others) <= 64 / 7 * 2
    """The newcomer's seventh of what is dealt out, each of which leaves one gap to fill."""


@given(nodes(), st.sampled_from(BOTH))
def test_everybody_keeps_as_many_as_it_can_hold_and_equally_many_of_each_group(
    drawn: tuple[ExpertShape, dict[NodeId, int]], layout: ExpertLayout
):
    shape, counts = drawn
    lists = dealt(shape, ranking(shape), counts, layout)
    assert {each: kept.count for each, kept in lists.items()} == counts
    size = shape.experts // shape.groups
    for kept in lists.values():
        assert tuple(kept.by_layer) == shape.layers
        for ids in kept.by_layer.values():
            assert len({sum(each // size == group for each in ids) for group in range(shape.groups)}) == 1


@given(nodes(), st.sampled_from(BOTH), st.randoms(use_true_random=False))
def test_the_answer_is_the_same_whatever_the_order_of_the_nodes(
    drawn: tuple[ExpertShape, dict[NodeId, int]], layout: ExpertLayout, chance: Random
):
    shape, counts = drawn
    shuffled = list(counts.items())
    chance.shuffle(shuffled)
    assert dealt(shape, ranking(shape), dict(shuffled), layout) == dealt(
        shape, ranking(shape), counts, layout
    )


@given(nodes(), st.integers(10**6 + 1, 10**7))
def test_with_the_best_layout_nobody_changes_when_a_node_joins_or_leaves(
    drawn: tuple[ExpertShape, dict[NodeId, int]], newcomer: int
):
    shape, counts = drawn
    more = counts | {node(newcomer): shape.experts}
    before = dealt(shape, ranking(shape), counts, "best")
    after = dealt(shape, ranking(shape), more, "best")
    assert {each: after[each] for each in counts} == before


@given(nodes())
def test_a_shared_layout_covers_all_experts_where_there_is_room_for_them(
    drawn: tuple[ExpertShape, dict[NodeId, int]],
):
    shape, counts = drawn
    lists = dealt(shape, ranking(shape), counts, "shared")
    core = core_of(shape)
    room = sum(max(0, count - core) for count in counts.values())
    roomy = any(count >= core for count in counts.values())
    for layer in shape.layers:
        covered = len(held(shape, lists, layer))
        if roomy:
            assert covered == min(shape.experts, core + room)
        else:
            assert covered == max(counts.values())


@given(nodes(), st.integers(10**6 + 1, 10**7))
def test_with_a_shared_layout_a_newcomer_moves_no_more_than_is_dealt_out(
    drawn: tuple[ExpertShape, dict[NodeId, int]], newcomer: int
):
    shape, counts = drawn
    before = dealt(shape, ranking(shape), counts, "shared")
    after = dealt(shape, ranking(shape), counts | {node(newcomer): shape.experts}, "shared")
    of_others = sum(moved(before[each], after[each]) for each in counts)
    assert of_others <= shape.experts - core_of(shape)


def test_a_ranking_of_another_model_is_refused():
    with pytest.raises(ValueError, match="each of 64 experts"):
        dealt(SHAPES[1], ranking(ExpertShape(16, 4, (1, 2, 5))), {node(1): 32}, "best")
