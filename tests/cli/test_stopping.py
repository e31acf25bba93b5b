import asyncio
import os
import signal
import subprocess
import sys

import pytest

from mesh_llm.cli.stopping import until_stopped

STUBBORN = """
import asyncio
from mesh_llm.cli.stopping import until_stopped

async def run(stopping):
    print("running", flush=True)
    await stopping.wait()
    print("stopping", flush=True)
    while True:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            print("cancelled", flush=True)

asyncio.run(until_stopped(run))
"""


async def test_what_ends_by_itself_has_status_0():
    async def run(_: asyncio.Event) -> None:
        pass

    assert await until_stopped(run) == 0


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
async def test_a_first_signal_asks_and_waits_for_the_end(how: signal.Signals):
    finished = False

    async def run(stopping: asyncio.Event) -> None:
        nonlocal finished
        os.kill(os.getpid(), how)
        await stopping.wait()
        await asyncio.sleep(0)  # an answer under way
        finished = True

    async with asyncio.timeout(30):
        assert await until_stopped(run) == 0
    assert finished


async def test_a_second_signal_cancels_what_is_still_under_way():
    cleaned_up = False

    async def run(stopping: asyncio.Event) -> None:
        nonlocal cleaned_up
        os.kill(os.getpid(), signal.SIGINT)
        await stopping.wait()
        os.kill(os.getpid(), signal.SIGINT)
        try:
            await asyncio.Event().wait()
        finally:
            cleaned_up = True

    async with asyncio.timeout(30):
        assert await until_stopped(run) == 130
    assert cleaned_up


async def test_a_cancellation_from_elsewhere_is_no_stop():
    async def run(_: asyncio.Event) -> None:
        raise asyncio.CancelledError

    with pytest.raises(asyncio.CancelledError):
        await until_stopped(run)


def test_a_third_signal_ends_even_what_will_not_be_cancelled():
    with subprocess.Popen([sys.executable, "-c", STUBBORN], stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            for step in ("running", "stopping", "cancelled"):
                assert process.stdout.readline().strip() == step
                process.send_signal(signal.SIGINT)
            assert process.wait(timeout=30) == 130
        finally:
            process.kill()
