import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesh_llm.engine.experts.comparison import LOG_PROBABILITY_MIN, Comparison, log_probabilities

LOGITS = st.lists(st.floats(-30, 30, width=32), min_size=2, max_size=40)


def row(*shares: float) -> np.ndarray:
    return np.log(np.array(shares, np.float32))


@given(LOGITS)
def test_probabilities_sum_to_one(logits: list[float]):
    assert np.exp(log_probabilities(np.array(logits, np.float32))).sum() == pytest.approx(1, abs=1e-5)


def test_what_can_never_be_said_stays_a_number():
    found = log_probabilities(np.array([0, -np.inf], np.float32))
    assert found.tolist() == [0, LOG_PROBABILITY_MIN]


def test_perplexity_is_the_inverse_of_the_mean_probability_of_what_came():
    comparison = Comparison()
    comparison.add(row(0.5, 0.25, 0.25), 0)
    comparison.add(row(0.5, 0.25, 0.25), 2)
    assert comparison.perplexity == pytest.approx(math.sqrt(2 * 4))


def test_a_cut_is_as_far_away_as_its_probabilities_say():
    comparison = Comparison()
    comparison.add(row(0.25, 0.75), 0, row(0.5, 0.5))
    assert comparison.divergence == pytest.approx(0.5 * math.log(2) + 0.5 * math.log(2 / 3))
    assert comparison.same_top == 1  # the full model would say either
    comparison.add(row(0.25, 0.75), 0, row(0.6, 0.4))
    assert (comparison.same_top, comparison.tokens) == (1, 2)


@given(LOGITS, LOGITS)
def test_no_two_are_nearer_than_the_same(first: list[float], second: list[float]):
    count = min(len(first), len(second))
    one, other = (log_probabilities(np.array(each[:count], np.float32)) for each in (first, second))
    comparison, same = Comparison(), Comparison()
    comparison.add(one, 0, other)
    same.add(one, 0, one)
    assert comparison.divergence > -1e-4 and same.divergence == 0 and same.same_top == 1
