"""When two views that differ are worth a full exchange.

News on its way makes views differ for a second or two; what differs for longer has been missed.
"""

from dataclasses import dataclass

PATIENCE_S = 4.0
"""News of 300 nodes has reached everybody in half of it, with a tenth of all datagrams lost."""
UNSETTLED_S = 30.0
"""Where something changes all the time views never settle: exchange in spite of it."""
INTERVAL_MIN_S = 5.0
INTERVAL_MAX_S = 60.0
"""Between two exchanges that one node begins; doubled while they bring no agreement."""


@dataclass(slots=True)
class Comparison:
    _differed_first: float | None = None
    _differed_last: float = 0.0
    _agreed: float = 0.0
    _exchanged: float | None = None
    _interval: float = INTERVAL_MIN_S

    def started(self, now: float) -> None:
        self._agreed = now

    def changed(self) -> None:
        """This node's own view did."""
        self._differed_first = None
        self._interval = INTERVAL_MIN_S

    def agreed(self, now: float) -> None:
        self._agreed = now
        self._interval = INTERVAL_MIN_S

    def differed(self, now: float, *, met: bool) -> bool:
        """Whether to exchange views with that peer now. `met`: it was gone or unknown until now."""
        if self._differed_first is None or now - self._differed_last > PATIENCE_S:
            self._differed_first = now
        self._differed_last = now
        lasting = now - self._differed_first >= PATIENCE_S or now - self._agreed >= UNSETTLED_S
        if not (met or lasting) or self._too_soon(now):
            return False
        self._exchanged = now
        self._interval = min(2 * self._interval, INTERVAL_MAX_S)
        return True

    def _too_soon(self, now: float) -> bool:
        return self._exchanged is not None and now - self._exchanged < self._interval
