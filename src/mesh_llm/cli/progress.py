"""How far long work is, as the reader can take it: bars on a terminal, else a line at each tenth."""

import logging
import sys
from contextlib import AbstractContextManager
from typing import Protocol, Self

from mesh_llm.core.progress import Progress
from mesh_llm.core.quantities import human_bytes
from mesh_llm.runtime.logs import Format

logger = logging.getLogger(__name__)

VERBS = {"download": "downloading", "verify": "checking", "load": "loading"}


class Display(AbstractContextManager["Display"], Protocol):
    def show(self, progress: Progress) -> None: ...


def display_for(format_: Format) -> Display:
    """Bars where a person watches a terminal, lines anywhere else."""
    if format_ == "json" or not sys.stderr.isatty():
        return LineDisplay()
    from mesh_llm.cli.bars import BarDisplay  # a service or a script need not wait for it

    return BarDisplay()


class LineDisplay:
    """A log line at the start, at each tenth, and at the end of each piece of work."""

    def __init__(self) -> None:
        self._tenths: dict[tuple[str, str], int] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def show(self, progress: Progress) -> None:
        work = (progress.activity, progress.subject)
        tenth = 10 * progress.done // progress.total if progress.total else 0
        if self._tenths.get(work) == tenth:
            return
        self._tenths[work] = tenth
        verb = VERBS[progress.activity]
        fields = {
            "activity": progress.activity,
            "subject": progress.subject,
            "done": progress.done,
            "total": progress.total,
        }
        logger.info("%s %s: %s", verb, progress.subject, _amount(progress), extra={"fields": fields})


def _amount(progress: Progress) -> str:
    if progress.total is None:
        return human_bytes(progress.done)
    percent = 100 * progress.done // max(1, progress.total)
    return f"{percent} % of {human_bytes(progress.total)}"
