"""Tables for people: as wide as their content on a pipe, folded to the width of a terminal."""

import sys
from collections.abc import Iterable, Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text

PIPE_WIDTH = 500
"""Wider than any row: a program that reads columns must see whole names."""


def show(titles: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """A title that ends in `>` makes its column align right."""
    table = Table(box=None, pad_edge=False)
    for title in titles:
        justify = "right" if title.endswith(">") else "left"
        table.add_column(title.removesuffix(">"), justify=justify, overflow="fold")
    for row in rows:
        table.add_row(*(Text(plain(cell)) for cell in row))
    Console(width=None if sys.stdout.isatty() else PIPE_WIDTH).print(table)


def plain(text: str) -> str:
    """Without what would steer a terminal: names come from files and from other people's nodes."""
    return "".join(character if character.isprintable() else "?" for character in text)
