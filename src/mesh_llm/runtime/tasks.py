"""Tasks with an owner that outlives them."""

import asyncio
from collections.abc import AsyncGenerator, Coroutine
from contextlib import asynccontextmanager


@asynccontextmanager
async def beside(**coroutines: Coroutine[None, None, None]) -> AsyncGenerator[None]:
    """Run these beside the body, under their names; they end when it does.

    Unlike a bare TaskGroup it lets the body's own exception through as itself, so callers can catch it by
    its type. One that fails ends the body.
    """
    try:
        async with asyncio.TaskGroup() as tasks:
            running = [tasks.create_task(work, name=name) for name, work in coroutines.items()]
            try:
                yield
            finally:
                for task in running:
                    task.cancel()
    except BaseExceptionGroup as group:
        if len(group.exceptions) == 1:
            raise group.exceptions[0] from None
        raise
