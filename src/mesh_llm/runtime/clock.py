"""The only reader of time."""

import time


class Clock:
    def monotonic(self) -> float:
        """Seconds that never go back; for durations."""
        return time.monotonic()

    def epoch(self) -> float:
        """Seconds since 1970; for dates people see."""
        return time.time()
