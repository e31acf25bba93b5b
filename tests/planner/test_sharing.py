import pytest

from mesh_llm.core.errors import DoesNotFit
from mesh_llm.planner.fit import Wish, least
from mesh_llm.planner.sharing import fit_all
from tests.engine.served_model_for_tests import FACTS

MODELS = [("first", FACTS), ("second", FACTS)]
LEAST = least(FACTS, Wish()).total


def test_with_plenty_every_model_gets_all_it_can_use():
    first, second = fit_all(MODELS, 100 * LEAST, Wish())
    assert first == second and first.context == FACTS.context_length


def test_the_first_leaves_the_second_what_it_needs_at_least():
    first, second = fit_all(MODELS, 2 * LEAST + 1_000_000, Wish())
    assert first.need.total + second.need.total <= 2 * LEAST + 1_000_000


def test_models_that_fit_alone_but_not_together_are_refused_with_the_sum():
    with pytest.raises(DoesNotFit, match=r"first does not fit .* for the models after it"):
        fit_all(MODELS, 2 * LEAST - 1, Wish())


def test_one_model_alone_that_does_not_fit_is_named():
    with pytest.raises(DoesNotFit, match=r"^first does not fit\. The model needs"):
        fit_all(MODELS[:1], LEAST - 1, Wish())
