"""Waiting, but not for ever, until what is under way has ended."""

import asyncio
import contextlib
from collections.abc import Callable

from mesh_llm.runtime.bell import Bell


async def drained(busy: Callable[[], int], changes: Bell, seconds_max: float) -> int:
    """Returns how much is still under way: 0 as soon as that is so, or what is left after `seconds_max`.

    `changes` must ring when `busy` becomes another.
    """
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(seconds_max):
            while busy():
                await changes.wait_for_ring()
    return busy()
