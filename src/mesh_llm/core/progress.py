"""How long work says how far it is; whoever started it decides how that is shown."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

Activity = Literal["download", "verify", "load", "rank"]


@dataclass(frozen=True, slots=True)
class Progress:
    """One report. Reports of one (activity, subject) never go back, and the last has `done == total`."""

    activity: Activity
    subject: str
    done: int
    total: int | None
    """Bytes; None while unknown."""


Report = Callable[[Progress], None]


def ignore(_: Progress) -> None:
    """The report of who does not care."""
