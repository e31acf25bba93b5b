"""Tasks with an owner that outlives them."""

import asyncio
from collections.abc import AsyncGenerator, Coroutine, Generator
from contextlib import asynccontextmanager, contextmanager
from typing import cast


@contextmanager
def unwrapped() -> Generator[None]:
    """A single exception that task groups have wrapped comes out as itself, to be caught by its type."""
    try:
        yield
    except BaseExceptionGroup as group:
        inner = _only_one(group)
        if inner is None:
            raise
        raise inner from None


@contextmanager
def first_fault() -> Generator[None]:
    """Of what task groups have wrapped, what went wrong first comes out; the others were ended by it."""
    try:
        yield
    except BaseExceptionGroup as group:
        first = cast("BaseException", group)
        while isinstance(first, BaseExceptionGroup):
            first = cast("tuple[BaseException, ...]", first.exceptions)[0]
        raise first from None


def _only_one(error: BaseException) -> BaseException | None:
    """What is inside groups of one; None where a group holds several."""
    while isinstance(error, BaseExceptionGroup):
        held = cast("tuple[BaseException, ...]", error.exceptions)
        if len(held) != 1:
            return None
        error = held[0]
    return error


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
