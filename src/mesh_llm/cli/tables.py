"""Tables for people: as wide as their content on a pipe, folded to the width of a terminal."""

import sys
from collections.abc import Iterable, Sequence

from rich.console import Console
from rich.table import Table

PIPE_WIDTH = 500
"""Wider than any row: a program that reads columns must see whole names."""


def show(titles: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """A title that ends in `>` makes its column align right."""
    table = Table(box=None, pad_edge=False)
    for title in titles:
        justify = "right" if title.endswith(">") else "left"
        table.add_column(title.removesuffix(">"), justify=justify, overflow="fold")
    for row in rows:
        table.add_row(*row)
    Console(width=None if sys.stdout.isatty() else PIPE_WIDTH).print(table)
