import asyncio

import pytest

from mesh_llm.runtime.tasks import beside, unwrapped


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


async def nested_failure() -> None:
    with unwrapped():
        async with asyncio.TaskGroup() as outer, asyncio.TaskGroup() as inner:
            outer.create_task(forever())
            inner.create_task(fails())


async def test_an_exception_comes_out_of_nested_groups_as_itself():
    with pytest.raises(LookupError, match="beside"):
        await nested_failure()


def test_several_exceptions_stay_a_group():
    with pytest.raises(ExceptionGroup), unwrapped():
        raise ExceptionGroup("both", [KeyError(), ValueError()])
