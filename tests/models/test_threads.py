import asyncio
import threading

import pytest

from mesh_llm.models.threads import run_to_end


async def test_the_result_and_the_error_of_the_call_come_back() -> None:
    assert await run_to_end(divmod, 7, 2) == (3, 1)
    with pytest.raises(ZeroDivisionError):
        await run_to_end(divmod, 7, 0)


@pytest.mark.parametrize("fails", [False, True])
async def test_a_cancelled_caller_leaves_only_when_the_call_is_over(fails: bool) -> None:
    began, go_on, done = threading.Event(), threading.Event(), threading.Event()

    def work() -> None:
        began.set()
        assert go_on.wait(10)
        done.set()
        if fails:
            raise OSError("nobody hears of it")

    task = asyncio.get_running_loop().create_task(run_to_end(work))
    await asyncio.to_thread(began.wait, 10)
    for _ in range(3):  # impatience changes nothing
        task.cancel()
        await asyncio.sleep(0)
        assert not task.done()
    go_on.set()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert done.is_set()
