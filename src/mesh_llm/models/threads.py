"""Work in a thread that is never left behind.

`asyncio.to_thread` lets go of its thread when the waiting task is cancelled; the thread then writes to a file
that its owner believes to be closed. Here cancelling waits until the call is over, so a call must be short.
"""

import asyncio
from collections.abc import Callable
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
R = TypeVar("R")


async def run_to_end(function: Callable[P, R], *arguments: P.args, **named: P.kwargs) -> R:
    """The result of `function`, run in a thread. A cancelled caller is cancelled after it, not during it."""
    call = asyncio.get_running_loop().run_in_executor(None, lambda: function(*arguments, **named))
    try:
        return await asyncio.shield(call)
    except asyncio.CancelledError:
        while not call.done():
            try:
                await asyncio.wait([call])
            except asyncio.CancelledError:
                continue
        call.exception()  # looked at, so that nobody reports it as forgotten
        raise
