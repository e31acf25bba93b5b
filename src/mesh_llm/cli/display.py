"""How progress is shown to whoever started the command: bars on a terminal, else lines."""

import sys
from contextlib import AbstractContextManager
from typing import Protocol

from mesh_llm.cli.progress import LineDisplay
from mesh_llm.core.progress import Progress
from mesh_llm.runtime.logs import Format


class Display(AbstractContextManager["Display"], Protocol):
    def show(self, progress: Progress) -> None: ...


def display_for(format_: Format) -> Display:
    """Bars where a person watches a terminal, lines anywhere else."""
    if format_ == "json" or not sys.stderr.isatty():
        return LineDisplay()
    from mesh_llm.cli.bars import BarDisplay  # a service or a script need not wait for it

    return BarDisplay()
