"""How often and how long to try what failed in a way that may pass."""

from collections.abc import Awaitable, Callable
from typing import TypeVar

from mesh_llm.core.errors import DownloadFailed

FAILURES_MAX = 8
"""In a row: with the pauses below three minutes, longer than a router takes to restart."""

PAUSE_S_FIRST = 1.0
PAUSE_S_MAX = 60.0


class Broken(Exception):
    """The exchange failed in a way that another one may not."""

    def __init__(self, reason: str, retry_after_s: float | None = None) -> None:
        super().__init__(reason)
        self.retry_after_s = retry_after_s


Sleep = Callable[[float], Awaitable[None]]
Result = TypeVar("Result")


def pause_s(failures: int, broken: Broken) -> float:
    """Seconds before the next try: doubling, or what the other side asked for, within PAUSE_S_MAX."""
    return min(PAUSE_S_MAX, max(PAUSE_S_FIRST * 2 ** (failures - 1), broken.retry_after_s or 0))


async def patiently(ask: Callable[[], Awaitable[Result]], whom: str, sleep: Sleep) -> Result:
    """The answer of `ask`, tried FAILURES_MAX times. Raises DownloadFailed."""
    failures = 0
    while True:
        try:
            return await ask()
        except Broken as broken:
            failures += 1
            if failures >= FAILURES_MAX:
                raise DownloadFailed(
                    f"{whom} cannot be reached ({broken}): check the network, the proxy and HF_ENDPOINT."
                ) from broken
            await sleep(pause_s(failures, broken))
