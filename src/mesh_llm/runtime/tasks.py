"""Tasks with an owner that outlives them."""

import asyncio
from collections.abc import AsyncGenerator, Coroutine, Generator
from contextlib import asynccontextmanager, contextmanager


@contextmanager
def unwrapped() -> Generator[None]:
    """A single exception that task groups have wrapped comes out as itself, to be caught by its type."""
    try:
        yield
    except BaseExceptionGroup as group:
        error: BaseException = group
        while isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
            error = error.exceptions[0]
        if error is group:
            raise
        raise error from None


@asynccontextmanager
async def beside(**coroutines: Coroutine[None, None, None]) -> AsyncGenerator[None]:
    """Run these beside the body, under their names; they end when it does.

    The body's own exception comes through as itself. A task that fails ends the body.
    """
    with unwrapped():
        async with asyncio.TaskGroup() as tasks:
            running = [tasks.create_task(work, name=name) for name, work in coroutines.items()]
            try:
                yield
            finally:
                for task in running:
                    task.cancel()
