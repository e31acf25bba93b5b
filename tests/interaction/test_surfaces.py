"""One table, surface by feature, asked of a model that runs whole here, whole elsewhere, and in stages.

A client must not be able to tell where: every cell gives the same answer, or is refused in the same way.
"""

import os

import pytest

from tests.engine.head.heads import kept
from tests.interaction.surfaces import chat, completions, messages, native, responses
from tests.interaction.surfaces.cells import Cell
from tests.interaction.surfaces.outcomes import Answered, Outcome, fits, outcome_of, outcomes_differ
from tests.interaction.surfaces.placements import PLACEMENTS, Placement, clients_of, three_placements

pytestmark = pytest.mark.real

TABLE = [*chat.CELLS, *completions.CELLS, *responses.CELLS, *messages.CELLS, *native.CELLS]


@pytest.fixture(scope="module")
def urls(store, tmp_path_factory):
    with kept(lambda: three_placements(store, tmp_path_factory.mktemp("homes"))) as urls:
        yield urls


@pytest.fixture(scope="module")
def of_whole():
    """Outcomes where the model runs whole, kept for the other placements."""
    outcomes: dict[str, Outcome] = {}
    return outcomes


async def asked(cell: Cell, url: str) -> Outcome:
    async with clients_of(url) as clients:
        return await outcome_of(cell.ask, clients)


FEATURES_ALWAYS = frozenset(
    {"plain", "stream", "json_schema", "tools required", "tools any", "beyond the context"}
)
"""Of each surface that has them; `make check-all` asks all."""

ASKED = [cell for cell in TABLE if cell.feature in FEATURES_ALWAYS or "MESH_LLM_SURFACES" in os.environ]


@pytest.mark.parametrize(
    ("cell", "placement"),
    [pytest.param(cell, placement, id=f"{cell}-{placement}") for cell in ASKED for placement in PLACEMENTS],
)
async def test_it_makes_no_difference_where_a_model_runs(cell: Cell, placement: Placement, urls, of_whole):
    got = await asked(cell, urls[placement])
    if placement == "whole":
        of_whole[str(cell)] = got
    if cell.refused is not None:
        assert fits(cell.refused, got), got
    elif cell.refused_split is not None and placement == "split":
        assert fits(cell.refused_split, got), got
        return
    else:
        assert isinstance(got, Answered), got
    expected = of_whole.get(str(cell)) or await asked(cell, urls["whole"])
    differences = outcomes_differ(got, expected)
    assert not differences, "\n".join(differences)


def test_no_cell_stands_twice():
    assert len({str(cell) for cell in TABLE}) == len(TABLE)
