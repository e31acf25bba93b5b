from hypothesis import given
from hypothesis import strategies as st

from mesh_llm.core.ids import NodeId
from mesh_llm.core.offers import MEASURES_NOW, WOULD_MEASURE
from mesh_llm.planner.measuring_turns import whose_turn

A, B, C = (NodeId(letter * 64) for letter in "abc")

said = st.dictionaries(
    st.sampled_from((A, B, C)), st.sampled_from((MEASURES_NOW, WOULD_MEASURE, "", "something newer"))
)


def test_of_those_that_would_measure_the_lowest_id_does():
    assert whose_turn({C: WOULD_MEASURE, B: WOULD_MEASURE, A: ""}) == B


def test_who_has_begun_goes_on_whoever_comes():
    assert whose_turn({A: WOULD_MEASURE, B: MEASURES_NOW}) == B


def test_where_nobody_can_it_is_nobody_s_turn():
    assert whose_turn({}) is None
    assert whose_turn({A: "", B: "something newer"}) is None


@given(said)
def test_if_who_measures_goes_another_takes_over_until_none_is_left(measuring: dict[NodeId, str]):
    left = dict(measuring)
    while (first := whose_turn(left)) is not None:
        assert left.pop(first) in (MEASURES_NOW, WOULD_MEASURE)
    assert not {MEASURES_NOW, WOULD_MEASURE} & set(left.values())
