"""How far long work is, as lines: for logs, services and scripts."""

import logging
from typing import Self

from mesh_llm.core.progress import Progress
from mesh_llm.core.quantities import human_bytes

logger = logging.getLogger(__name__)

VERBS = {"download": "downloading", "verify": "checking", "load": "loading", "rank": "ranking the experts of"}


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
