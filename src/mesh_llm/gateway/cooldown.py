"""Who failed lately is tried last for a while. Pure."""

from dataclasses import dataclass

FIRST_PAUSE_S = 5.0
"""An engine that died is back within seconds."""

PAUSE_S_MAX = 300.0
"""Of a server that fails again and again; a success ends it at once."""

REMEMBERED_MAX = 1024
"""Servers; those whose pause has ended longest ago are forgotten first."""


@dataclass(frozen=True, slots=True)
class Pause:
    ends: float
    length_s: float


class Cooldowns:
    """Of servers of one model each: (where, model)."""

    def __init__(self) -> None:
        self._pauses: dict[tuple[str, str], Pause] = {}

    def failed(self, where: str, model: str, now: float) -> None:
        """It broke off or did not answer: twice as long as the last time."""
        last = self._pauses.get((where, model))
        length = FIRST_PAUSE_S if last is None else min(2 * last.length_s, PAUSE_S_MAX)
        self._pause(where, model, Pause(now + length, length))

    def refused(self, where: str, model: str, now: float) -> None:
        """It lives but has no room: a short pause, and no longer one the next time."""
        last = self._pauses.get((where, model))
        length = FIRST_PAUSE_S if last is None else last.length_s
        ends = max(now + FIRST_PAUSE_S, last.ends if last else now)
        self._pause(where, model, Pause(ends, length))

    def succeeded(self, where: str, model: str) -> None:
        self._pauses.pop((where, model), None)

    def is_cooling(self, where: str, model: str, now: float) -> bool:
        pause = self._pauses.get((where, model))
        return pause is not None and now < pause.ends

    def _pause(self, where: str, model: str, pause: Pause) -> None:
        self._pauses[where, model] = pause
        if len(self._pauses) > REMEMBERED_MAX:
            oldest = min(self._pauses, key=lambda key: self._pauses[key].ends)
            del self._pauses[oldest]
