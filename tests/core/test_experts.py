"""Which experts a cut keeps: the best of each layer, evenly by group, and as many as a token uses."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mesh_llm.core.experts import ExpertRanking, ExpertShape, Kept, Quality, best, filled, lists_digest

PLAIN = ExpertShape(experts=8, used=3, layers=(0, 1))
GROUPED = ExpertShape(experts=16, used=4, layers=(1, 2), groups=4, groups_used=2)


@st.composite
def shapes(draw: st.DrawFn) -> ExpertShape:
    groups = draw(st.integers(1, 8))
    groups_used = draw(st.integers(1, groups))
    size = draw(st.integers(2, 12))
    used = draw(st.integers(1, groups_used * size))
    return ExpertShape(groups * size, used, (0, 3, 4), groups, groups_used)


@st.composite
def ranked(draw: st.DrawFn) -> tuple[ExpertShape, ExpertRanking]:
    shape = draw(shapes())
    lists = {layer: tuple(draw(st.permutations(range(shape.experts)))) for layer in shape.layers}
    return shape, ExpertRanking.of(lists, "drawn")


def test_the_best_of_each_layer_are_kept_in_ascending_order() -> None:
    ranking = ExpertRanking.of({0: (7, 2, 5, 0, 1, 3, 4, 6), 1: (0, 1, 6, 7, 2, 3, 4, 5)}, "a test")
    assert best(ranking, 4, PLAIN).by_layer == {0: (0, 2, 5, 7), 1: (0, 1, 6, 7)}


def test_with_groups_equally_many_of_each_group_are_kept() -> None:
    ranking = ExpertRanking.of({1: tuple(range(16)), 2: tuple(reversed(range(16)))}, "a test")
    kept = best(ranking, 8, GROUPED).by_layer
    assert kept == {1: (0, 1, 4, 5, 8, 9, 12, 13), 2: (2, 3, 6, 7, 10, 11, 14, 15)}


@settings(deadline=None)
@given(ranked(), st.data())
def test_what_is_kept_is_even_by_group_and_never_worse_than_what_is_left(
    given: tuple[ExpertShape, ExpertRanking], data: st.DataObject
) -> None:
    shape, ranking = given
    count = data.draw(st.sampled_from([n for n in range(1, shape.experts + 1) if shape.allows(n)]))
    kept = best(ranking, count, shape)
    size = shape.experts // shape.groups
    for layer, ids in kept.by_layer.items():
        place = {expert: rank for rank, expert in enumerate(ranking.by_layer[layer])}
        for group in range(shape.groups):
            inside = range(group * size, (group + 1) * size)
            chosen = [place[each] for each in ids if each in inside]
            left = [place[each] for each in inside if each not in ids]
            assert len(chosen) == count // shape.groups
            assert max(chosen) < min(left, default=shape.experts)


@given(shapes())
def test_the_fewest_leave_a_token_all_that_it_uses(shape: ExpertShape) -> None:
    assert shape.allows(shape.fewest)
    assert shape.used_of(shape.fewest) == shape.used
    assert shape.at_most(shape.fewest) == shape.fewest
    assert shape.at_most(shape.fewest - 1) is None
    assert shape.at_most(10**6) == shape.experts


@given(shapes())
def test_no_cut_uses_more_experts_than_its_groups_hold(shape: ExpertShape) -> None:
    for count in filter(shape.allows, range(1, shape.experts + 1)):
        assert 0 < shape.used_of(count) <= count // shape.groups * shape.groups_used


def test_a_group_keeps_two_because_it_is_scored_by_two() -> None:
    shape = ExpertShape(experts=16, used=1, layers=(0,), groups=4, groups_used=4)
    assert shape.fewest_possible == 8
    assert not shape.allows(4)


@pytest.mark.parametrize("count", [1, 3, 9])
def test_a_number_that_the_groups_do_not_allow_is_refused(count: int) -> None:
    ranking = ExpertRanking.of({1: tuple(range(16)), 2: tuple(range(16))}, "a test")
    with pytest.raises(ValueError, match="cannot be kept"):
        best(ranking, count, GROUPED)


def test_a_ranking_of_another_model_is_refused() -> None:
    ranking = ExpertRanking.of({0: tuple(range(7)), 1: tuple(range(8))}, "a test")
    with pytest.raises(ValueError, match="each of 8 experts once"):
        best(ranking, 4, PLAIN)


def test_a_layer_that_only_drafts_takes_the_list_of_the_layer_before_it() -> None:
    assert filled({0: (1, 0), 4: (0, 1)}, ExpertShape(2, 1, (0, 4, 5)))[5] == (0, 1)
    with pytest.raises(ValueError, match="layer 0"):
        filled({1: (0, 1)}, ExpertShape(2, 1, (0, 1)))


def test_a_digest_is_of_the_lists_and_of_nothing_else() -> None:
    one = ExpertRanking.of({0: (0, 1), 1: (1, 0)}, "measured")
    assert one.digest == ExpertRanking.of({1: (1, 0), 0: (0, 1)}, "fetched").digest
    assert one.digest != lists_digest({0: (0, 1), 1: (0, 1)})
    assert lists_digest({1: (2,)}) != lists_digest({12: ()})


@pytest.mark.parametrize("lists", [{}, {0: (0, 1), 1: (0,)}, {0: (1, 0)}, {0: (0, 0)}, {0: (-1, 0)}], ids=str)
def test_no_cut_is_uneven_or_out_of_order(lists: dict[int, tuple[int, ...]]) -> None:
    with pytest.raises(ValueError, match=r"^(a cut keeps|the experts)"):
        Kept(lists)


@pytest.mark.parametrize(
    ("experts", "used", "layers", "groups", "groups_used"),
    [(8, 9, (0,), 1, 1), (8, 0, (0,), 1, 1), (9, 2, (0,), 2, 1), (8, 2, (), 1, 1), (8, 2, (1, 0), 1, 1)],
)
def test_an_impossible_mixture_has_no_shape(
    experts: int, used: int, layers: tuple[int, ...], groups: int, groups_used: int
) -> None:
    with pytest.raises(ValueError, match="ExpertShape"):
        ExpertShape(experts, used, layers, groups, groups_used)


def test_a_cut_of_twice_the_perplexity_has_the_ratio_two() -> None:
    assert Quality(20.0, 10.0, 0.5, 0.7, 100).ratio == 2.0
