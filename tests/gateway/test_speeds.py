import pytest

from mesh_llm.gateway.speeds import TOKENS_MIN, Speeds


def test_the_first_answer_is_the_first_guess():
    speeds = Speeds()
    assert speeds.of("m") == 0
    speeds.note("m", 101, 2.0)
    assert speeds.of("m") == 50
    assert speeds.of("other") == 0


def test_one_odd_answer_changes_little_and_many_change_it_all():
    speeds = Speeds()
    speeds.note("m", 101, 1.0)
    speeds.note("m", 11, 1.0)
    assert speeds.of("m") == 82
    for _ in range(30):
        speeds.note("m", 11, 1.0)
    assert speeds.of("m") == 10


@pytest.mark.parametrize(("tokens", "told"), [(1235, 1200), (124, 120), (57, 56), (9, 8.0)])
def test_two_digits_are_told(tokens, told):
    speeds = Speeds()
    speeds.note("m", tokens, 1.0)
    assert speeds.of("m") == told


def test_short_answers_and_those_that_took_no_time_teach_nothing():
    speeds = Speeds()
    speeds.note("m", TOKENS_MIN - 1, 1.0)
    speeds.note("m", 100, 0.0)
    assert speeds.of("m") == 0
