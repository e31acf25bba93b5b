"""The table's frame: a cell is one feature asked for through one surface, and what must come of it."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from tests.interaction.surfaces.outcomes import Refused
from tests.interaction.surfaces.placements import Clients

Ask = Callable[[Clients], Awaitable[Any]]
"""Gives what is compared between placements, or raises an SDK's error; asserts what holds for any answer."""


@dataclass(frozen=True)
class Cell:
    surface: str
    feature: str
    ask: Ask
    refused: Refused | None
    """So, wherever the model runs; None: it is answered."""
    refused_split: Refused | None
    """So where it runs in stages, and answered elsewhere."""

    def __str__(self) -> str:
        return f"{self.surface} {self.feature}".replace(" ", "-")


def table_of(cells: list[Cell], surface: str) -> Callable[..., Callable[[Ask], Ask]]:
    def cell(
        feature: str,
        *,
        refused: Refused | None = None,
        refused_split: Refused | None = None,
    ) -> Callable[[Ask], Ask]:
        def enter(ask: Ask) -> Ask:
            cells.append(Cell(surface, feature, ask, refused, refused_split))
            return ask

        return enter

    return cell


BAD = Refused(400)


def bad(code: str | None = None, parameter: str | None = None) -> Refused:
    return Refused(400, code=code, parameter=parameter)
