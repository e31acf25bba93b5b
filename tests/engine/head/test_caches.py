import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesh_llm.engine.head.caches import Beginning, Caches, common_length
from mesh_llm.engine.ring.frames import Command, Operation


@given(
    same=st.integers(0, 700),
    one=st.lists(st.integers(0, 3), max_size=3),
    other=st.lists(st.integers(4, 9), max_size=3),
)
def test_two_lists_have_as_many_first_tokens_in_common_as_are_the_same(same, one, other):
    common = [position % 7 for position in range(same)]
    assert common_length(common + one, common + other) == same


def test_a_copied_beginning_takes_no_cells_and_is_free_when_both_are_dropped():
    caches = Caches(10, 3, forgets=False)
    first, second = caches.take_place(), caches.take_place()
    caches.grow(first, 6)
    caches.copy(first, second, 4)
    caches.grow(second, 3)
    assert (caches.used, caches.free) == (9, 1)
    caches.drop(first)
    assert caches.used == 7
    caches.drop(second)
    assert caches.used == 0
    assert caches.take_commands() == (
        Command(Operation.COPY, first, 0, 4, second),
        Command(Operation.DROP, first),
        Command(Operation.DROP, second),
    )
    assert caches.take_commands() == ()


def test_the_longest_beginning_is_found_and_leaves_a_token_to_compute():
    caches = Caches(100, 3, forgets=False)
    for tokens in ([1, 2, 3], [1, 2, 3, 4, 5], [2]):
        place = caches.take_place()
        caches.grow(place, len(tokens))
        caches.keep(place, tokens)
    assert caches.find([1, 2, 3, 4, 9]) == Beginning(1, 4)
    assert caches.find([1, 2, 3, 4, 5]) == Beginning(1, 4)
    assert caches.find([3]) is None
    assert caches.find([1]) is None


@pytest.mark.parametrize(("tokens", "found"), [([1, 2, 3, 4], 3), ([1, 2, 3], None), ([1, 2, 9], None)])
def test_what_forgets_is_gone_on_with_at_its_end_only(tokens, found):
    caches = Caches(100, 1, forgets=True)
    place = caches.take_place()
    caches.grow(place, 3)
    caches.keep(place, [1, 2, 3])
    beginning = caches.find(tokens)
    assert (beginning and beginning.tokens) == found


def test_a_place_that_holds_nothing_is_free_again_without_a_command():
    caches = Caches(10, 1, forgets=False)
    caches.keep(caches.take_place(), [1, 2])
    assert caches.has_place and caches.find([1, 2, 3]) is None
    caches.drop(caches.take_place())
    assert caches.take_commands() == ()


def test_no_more_is_dropped_than_is_needed():
    caches = Caches(10, 3, forgets=False)
    for number in range(3):
        place = caches.take_place()
        caches.grow(place, 3)
        caches.keep(place, [number] * 3)
    assert caches.make_free(1) and caches.take_commands() == ()
    assert caches.make_free(2) and caches.take_commands() == (Command(Operation.DROP, 0),)
    assert not caches.make_free(11, spared=Beginning(1, 2))
    assert caches.used == 2, "of the spared one what is spared"
