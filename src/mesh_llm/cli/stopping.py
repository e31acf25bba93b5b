"""From signals to the end of a node: asked first, cancelled next, cut off at last."""

import asyncio
import logging
import os
import signal
from collections.abc import Awaitable, Callable

logger = logging.getLogger(__name__)

INTERRUPTED = 130
"""What shells expect after Ctrl-C: 128 + SIGINT."""


async def until_stopped(run: Callable[[asyncio.Event], Awaitable[None]]) -> int:
    """Runs until it ends. Returns the command's status: 0, or 130 where it had to be cancelled.

    A first SIGINT or SIGTERM sets the event: `run` is to finish what is under way, and return. A second one
    cancels it, which still stops everything in order. A third ends the process where it stands; children
    end with it, since their lifeline is cut.
    """
    me = asyncio.current_task()
    assert me is not None
    stopping = asyncio.Event()
    signals = 0

    def stop() -> None:
        nonlocal signals
        signals += 1
        if signals == 1:
            logger.info("stopping")
            stopping.set()
        elif signals == 2:
            logger.info("stopping now")
            me.cancel()
        else:
            os._exit(INTERRUPTED)

    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop)
    try:
        await run(stopping)
    except asyncio.CancelledError:
        if signals < 2:
            raise
        return INTERRUPTED
    finally:
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.remove_signal_handler(number)
    return 0
