import asyncio
import os
import signal
import sys

import psutil
import pytest

from mesh_llm.runtime.children import Child, describe_exit
from mesh_llm.runtime.tasks import beside


def python(program: str) -> list[str]:
    return [sys.executable, "-c", program]


async def spawn(program: str, first_line: bytes = b"") -> Child:
    return await Child.spawn("test child", python(program), os.environ, first_line)


async def test_a_child_reads_its_first_line_and_is_heard():
    child = await spawn("print('got', input())", b"settings")
    assert [line async for line in child.lines()] == ["got settings"]
    assert await child.wait() == 0
    await child.stop()


async def test_the_last_words_on_standard_error_are_kept():
    child = await spawn("import sys; [print(n, file=sys.stderr) for n in range(100)]; sys.exit(3)")
    await child.collect_tail()
    assert await child.wait() == 3
    assert child.tail[-1] == "99" and len(child.tail) == 40
    await child.stop()


async def test_a_line_without_end_costs_no_memory_and_stops_nothing():
    child = await spawn("print('x' * 5_000_000); print('after')")
    assert [line async for line in child.lines()][-1] == "after"
    await child.stop()


async def test_a_child_that_ignores_the_end_of_its_lifeline_is_killed():
    child = await spawn("import signal, time; print('up', flush=True); time.sleep(1000)")
    async for line in child.lines():
        assert line == "up"
        break
    await child.stop()
    assert await child.wait() == -signal.SIGKILL


async def test_stopping_a_child_that_is_gone_is_no_error():
    child = await spawn("pass")
    await child.wait()
    await child.stop()
    await child.stop()


async def test_ctrl_c_in_the_terminal_does_not_reach_the_child():
    child = await spawn("import sys; print('up', flush=True); sys.stdin.read()")
    async with beside(stderr=child.collect_tail()):
        async for _ in child.lines():
            break
        assert os.getsid(child.pid) == child.pid != os.getsid(0)
        await child.stop()


HELD = """
import os, sys
from mesh_llm.runtime import lifeline
sys.stdin.buffer.raw.readline()
lifeline.hold()
print(os.getpid(), flush=True)
while True: pass
"""


async def test_a_busy_child_and_its_watcher_die_when_the_lifeline_is_cut():
    child = await spawn(HELD)
    async for line in child.lines():
        assert line == str(child.pid)
        break
    family = [psutil.Process(child.pid), *psutil.Process(child.pid).children()]
    assert len(family) == 2
    await child.stop()
    assert await child.wait() == -signal.SIGKILL
    await asyncio.to_thread(psutil.wait_procs, family, 10)
    assert not any(process.is_running() for process in family)


async def test_the_watcher_ends_when_the_child_dies_by_itself():
    child = await spawn(HELD)
    async for _ in child.lines():
        break
    (watcher,) = psutil.Process(child.pid).children()
    os.kill(child.pid, signal.SIGKILL)
    assert await child.wait() == -signal.SIGKILL
    await child.stop()
    gone, alive = await asyncio.to_thread(psutil.wait_procs, [watcher], 10)
    assert gone and not alive


@pytest.mark.parametrize(
    ("status", "words"),
    [(3, "exit status 3"), (-signal.SIGABRT, "killed by SIGABRT"), (-250, "killed by signal 250")],
)
def test_an_exit_is_told_in_words(status, words):
    assert describe_exit(status) == words
