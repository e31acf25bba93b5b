import asyncio

import pytest

from mesh_llm.runtime.tasks import beside


async def forever() -> None:
    await asyncio.Event().wait()


async def fails() -> None:
    raise LookupError("beside")


async def test_the_body_s_own_exception_comes_through_as_itself():
    with pytest.raises(KeyError):
        async with beside(other=forever()):
            raise KeyError("body")


async def test_a_task_that_fails_ends_the_body():
    with pytest.raises(LookupError, match="beside"):
        async with beside(failing=fails()):
            await forever()


async def test_tasks_end_with_the_body():
    ended = asyncio.Event()

    async def until_cancelled() -> None:
        try:
            await forever()
        finally:
            ended.set()

    async with beside(other=until_cancelled()):
        await asyncio.sleep(0)
    assert ended.is_set()
