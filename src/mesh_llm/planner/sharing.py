"""Several models on one machine: each gets what it needs at least, then the first named gets the most."""

from collections.abc import Sequence

from mesh_llm.core.errors import DoesNotFit
from mesh_llm.core.model import ModelFacts
from mesh_llm.core.quantities import human_bytes
from mesh_llm.planner.fit import Fit, Wish, fit, least


def fit_all(models: Sequence[tuple[str, ModelFacts]], budget_bytes: int, wish: Wish) -> list[Fit]:
    """A fit for each of these (name, facts), in order, that together need no more than `budget_bytes`.

    Raises DoesNotFit naming the model, or the sum where each would fit alone.
    """
    needs = [least(facts, wish).total for _, facts in models]
    left = budget_bytes
    fits: list[Fit] = []
    for index, (name, facts) in enumerate(models):
        fits.append(_fit_one(name, facts, left, sum(needs[index + 1 :]), wish))
        left -= fits[-1].need.total
    return fits


def _fit_one(name: str, facts: ModelFacts, left: int, needed_by_others: int, wish: Wish) -> Fit:
    try:
        return fit(facts, left - needed_by_others, wish)
    except DoesNotFit as error:
        others = f" ({human_bytes(needed_by_others)} are for the models after it)" if needed_by_others else ""
        raise DoesNotFit(f"{name} does not fit{others}. {error}") from error
