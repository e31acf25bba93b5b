from hypothesis import given
from hypothesis import strategies as st

from mesh_llm.core.offers import CutOffer
from mesh_llm.gateway.candidates import Place, candidates
from tests.gateway.meshes import an_offer


def a_place(where="b", *, here=False, ready=True, slots=4, busy=0, speed=0.0, kept=0) -> Place:
    """`kept` of 16 experts; 0: the whole model."""
    cut = CutOffer("ab" * 32, choice="cd", kept=kept, experts=16) if kept else None
    return Place(where, here, an_offer("m", ready=ready, slots=slots, speed=speed, cut=cut), busy)


def order(places, **circumstances) -> list[str]:
    return [place.where for place in candidates(places, **circumstances)]


def test_a_backend_here_with_a_free_slot_comes_first():
    far = a_place("far", speed=1000.0, slots=64)
    assert order([far, a_place("here", here=True, speed=1.0, busy=3)]) == ["here", "far"]


def test_a_full_backend_here_is_weighed_like_the_others():
    here = a_place("here", here=True, busy=4, speed=10.0)
    assert order([here, a_place("far", busy=0, speed=10.0)]) == ["far", "here"]
    assert order([here, a_place("far", busy=9, speed=10.0)]) == ["here", "far"]


def test_load_is_weighed_by_slots_and_speed():
    fast, slow = a_place("fast", busy=3, speed=100.0), a_place("slow", busy=0, speed=20.0)
    assert order([slow, fast]) == ["fast", "slow"]
    wide, narrow = a_place("wide", busy=3, slots=16), a_place("narrow", busy=1, slots=1)
    assert order([narrow, wide]) == ["wide", "narrow"]


def test_an_unknown_speed_counts_as_the_usual_one():
    places = [a_place("quick", speed=300.0), a_place("new"), a_place("lame", speed=3.0)]
    assert order(places) == ["quick", "new", "lame"]


def test_a_conversation_stays_where_it_was_as_long_as_there_is_room():
    here, far = a_place("here", here=True), a_place("far", busy=3)
    assert order([here, far], favourite="far") == ["far", "here"]
    assert order([here, a_place("far", busy=4)], favourite="far") == ["here", "far"]
    assert order([here, far], favourite="gone") == ["here", "far"]


def test_who_failed_lately_comes_last_even_here_and_even_as_favourite():
    here, far = a_place("here", here=True), a_place("far", busy=30)
    assert order([here, far], cooling={"here"}, favourite="here") == ["far", "here"]


def test_a_node_that_leaves_is_the_last_to_answer():
    here, far = a_place("here", here=True), a_place("far", busy=30)
    assert order([here, far], leaving=True, cooling={"far"}) == ["far", "here"]


def test_who_has_all_of_the_model_comes_before_who_approximates_it():
    whole, cut = a_place("whole", busy=30, speed=1.0), a_place("cut", here=True, speed=1000.0, kept=12)
    assert order([cut, whole], favourite="cut", sticks=True) == ["whole", "cut"]
    assert order([cut, whole], cooling={"whole"}) == ["cut", "whole"]
    assert order([cut, a_place("whole", ready=False)]) == ["cut"]


def test_a_cut_that_keeps_all_experts_is_as_good_as_the_whole_model():
    all_kept, cut = a_place("all", kept=16), a_place("cut", here=True, kept=15)
    assert order([cut, all_kept]) == ["all", "cut"]
    assert order([a_place("whole", busy=2), all_kept]) == ["all", "whole"]


def test_equals_are_told_apart_by_the_conversation():
    places = [a_place(str(number)) for number in range(8)]
    firsts = {order(places, conversation=b"%d" % number)[0] for number in range(200)}
    assert len(firsts) == 8


places = st.lists(
    st.builds(
        a_place,
        st.text("abcdef", min_size=1, max_size=3),
        here=st.booleans(),
        ready=st.booleans(),
        slots=st.integers(-3, 10**6),
        busy=st.integers(0, 10**6),
        speed=st.floats(allow_nan=True, allow_infinity=True),
        kept=st.integers(0, 16),
    ),
    max_size=8,
    unique_by=lambda place: place.where,
)


@given(places, st.data(), st.booleans(), st.binary(max_size=4))
def test_everybody_who_is_ready_is_tried_once_whatever_others_say(places, data, leaving, conversation):
    names = [place.where for place in places]
    cooling = data.draw(st.sets(st.sampled_from(names))) if names else set()
    favourite = data.draw(st.none() | st.sampled_from(names)) if names else None
    circumstances = {
        "favourite": favourite,
        "cooling": cooling,
        "leaving": leaving,
        "conversation": conversation,
    }
    ordered = order(places, **circumstances)
    assert sorted(ordered) == sorted(place.where for place in places if place.served.ready)
    shuffled = data.draw(st.permutations(places))
    assert order(shuffled, **circumstances) == ordered
    by_name = {place.where: place for place in places}
    last = [(leaving and by_name[where].here, where in cooling) for where in ordered]
    assert last == sorted(last)
    if favourite in ordered and favourite not in cooling and by_name[favourite].has_room and not leaving:
        before = ordered[: ordered.index(favourite)]
        assert by_name[favourite].approximates >= bool(before)
        assert not any(by_name[where].approximates for where in before)


@given(places)
def test_more_work_never_moves_a_place_forward(places):
    ready = [place for place in places if place.served.ready]
    for place in ready:
        before = order(ready).index(place.where)
        laden = [Place(one.where, one.here, one.served, one.busy + (one is place) * 1000) for one in ready]
        assert order(laden).index(place.where) >= before
