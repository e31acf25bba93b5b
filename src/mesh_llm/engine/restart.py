"""When an engine that broke is started again, and when it is given up. Decides; `supervisor.py` acts.

A model that cannot load fails the same way each time, so three failures without a healthy stretch between
them end it. One that crashes now and then is restarted for ever: a stretch of health forgives what was
before.
"""

from dataclasses import dataclass

FAILURES_MAX = 3
BACKOFF_FIRST_S = 1.0
BACKOFF_MAX_S = 30.0
HEALTHY_S = 60.0
"""Ready for this long, an engine's earlier failures no longer count."""


@dataclass(frozen=True, slots=True)
class Retry:
    after_s: float
    attempt: int
    """1 for the first restart."""


@dataclass(frozen=True, slots=True)
class GiveUp:
    failures: int


@dataclass(frozen=True, slots=True)
class FailureHistory:
    failures: int = 0

    def after_failure(self, ready_s: float) -> "FailureHistory":
        """`ready_s`: seconds that the engine had been ready before it broke; 0 where it never was."""
        return FailureHistory(1 if ready_s >= HEALTHY_S else self.failures + 1)

    def decide(self) -> Retry | GiveUp:
        if self.failures >= FAILURES_MAX:
            return GiveUp(self.failures)
        return Retry(min(BACKOFF_FIRST_S * 2 ** (self.failures - 1), BACKOFF_MAX_S), self.failures)
