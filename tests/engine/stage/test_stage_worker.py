"""A stage's process: what it refuses to load, what it refuses to compute, and that it outlives all that."""

import asyncio
import os
import random
import signal
import struct
from dataclasses import replace

import numpy as np
import psutil
import pytest

from mesh_llm.core.errors import EngineFailed
from mesh_llm.engine.ring.frames import (
    LENGTH_BYTES,
    Broken,
    Command,
    Hello,
    Operation,
    Shape,
    Step,
    encode,
)
from mesh_llm.engine.stage.stage_worker import StageWorker
from tests.engine.stage.chains import running_stage, session, stage_settings
from tests.engine.stage.stage_files import lay_out_stage

pytestmark = pytest.mark.real

LAYERS, WIDTH = 4, 576


@pytest.fixture(scope="session")
def stage_file(smollm2, tmp_path_factory):
    return lay_out_stage(smollm2, tmp_path_factory.mktemp("stage") / "stage.gguf", 0, LAYERS)


@pytest.fixture
def settings(stage_file, tmp_path):
    return stage_settings(stage_file, LAYERS, tmp_path / "stage.sock")


def a_step(number: int = 1, rows: int = 2, *, first: int = 0, sequence: int = 0, **changes: object) -> Step:
    hidden = np.random.default_rng(number).standard_normal((rows, WIDTH), np.float32)
    fields: dict[str, object] = {
        "number": number,
        "commands": (),
        "positions": np.arange(first, first + rows, dtype=np.int32),
        "sequences": np.full(rows, sequence, np.int32),
        "hidden": hidden,
    }
    return Step(**{**fields, **changes})


async def computes(ring) -> bool:
    answer = await ring.pass_through(a_step())
    return isinstance(answer, Step) and answer.hidden.shape == (2, WIDTH) and len(answer.microseconds) == 1


async def test_a_stage_loads_tells_how_far_it_is_and_says_its_width_and_memory(settings):
    seen: list[float] = []
    async with asyncio.timeout(60), StageWorker.start(settings, os.environ, seen.append) as worker:
        ready = await worker.wait_until_ready()
        family = [psutil.Process(worker.pid), *psutil.Process(worker.pid).children()]
        assert (ready.socket_path, ready.width) == (settings.socket_path, WIDTH)
        assert 50_000_000 < ready.resident_bytes < 500_000_000
        assert seen == sorted(seen) and seen[-1] == 1.0
    gone, alive = psutil.wait_procs(family, timeout=5)
    assert len(gone) == 2 and not alive


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"layers": 5}, "has 4 layers instead of 5"),
        ({"residual": "l_out-17"}, "l_out-17 had 0 of 2304 bytes"),
        ({"memory_bytes": 10**15}, "needs 1000.0 TB of memory and .* are free now"),
        ({"model_path": "/nowhere.gguf"}, "No such file or directory.*nowhere.gguf cannot be loaded"),
    ],
)
async def test_a_stage_that_cannot_run_says_why(settings, changes, reason):
    bad = replace(settings, **changes)
    async with asyncio.timeout(60), StageWorker.start(bad, os.environ, lambda _: None) as worker:
        with pytest.raises(EngineFailed, match=reason):
            await worker.wait_until_ready()


async def test_another_library_is_refused_with_the_cure(settings):
    other = {**os.environ, "MESH_LLM_LIBLLAMA": "/nowhere/libllama.so"}
    async with asyncio.timeout(60), StageWorker.start(settings, other, lambda _: None) as worker:
        with pytest.raises(EngineFailed, match="MESH_LLM_LIBLLAMA name the libllama"):
            await worker.wait_until_ready()


async def test_a_killed_stage_is_noticed_by_its_parent_and_by_the_ring(settings):
    async with running_stage(settings) as worker, session(settings, WIDTH) as ring:
        os.kill(worker.pid, signal.SIGKILL)
        assert await worker.wait_for_end() == "killed by SIGKILL"
        assert await ring.receive() is None


def hello_of(**changes: int) -> bytes:
    shape = {"width": WIDTH, "batch": 64, "sequences": 4, "context": 1024}
    return encode(Hello(Shape(**{**shape, **changes})))


GREETING = hello_of()
NAN = a_step()
NAN.hidden[1, 7] = np.nan
BAD_SESSIONS = {
    "no hello": (encode(a_step()), "before the hello"),
    "two hellos": (GREETING * 2, "a second hello"),
    "another width": (hello_of(width=999), "999"),
    "another context": (hello_of(context=2048), "2048"),
    "too many stages": (encode(Hello(Shape(WIDTH, 64, 4, 1024), layers=(1,) * 64)), "more than 64 stages"),
    "no frame": (b"GET / HTTP/1.1\r\n\r\n", "a frame of"),
    "a frame cut off": (GREETING + encode(a_step())[:-9], "ended within a frame"),
    "a length cut off": (GREETING + b"\x01", "ended within a frame"),
    "unknown kind": (GREETING + struct.pack("<IB", 1, 77), "unknown kind 77"),
    "not a number": (GREETING + encode(NAN), "finite"),
    "wrong width": (GREETING + encode(a_step(hidden=np.ones((2, 8), np.float32))), "another length"),
    "a row twice": (GREETING + encode(a_step(positions=np.zeros(2, np.int32))), "instead of 1"),
    "a gap": (GREETING + encode(a_step(first=5)), "position 5 instead of 0"),
    "steps out of order": (GREETING + encode(a_step(2)) + encode(a_step(1, first=2)), "came after step 2"),
    "unknown sequence": (GREETING + encode(a_step(sequence=4)), "beyond the 4"),
    "a hole": (
        GREETING + encode(a_step()) + encode(a_step(2, commands=(Command(Operation.DROP, 0, 0, 1),))),
        "would leave a hole",
    ),
    "too large for f16": (
        GREETING + encode(a_step(hidden=np.full((2, WIDTH), 65504, np.float16))),
        "--activations f32",
    ),
    "broken before": (GREETING + encode(Broken("the stage before is gone")), "the stage before is gone"),
}


async def test_each_bad_session_ends_with_its_reason_and_the_next_one_is_served(settings):
    async with running_stage(settings) as worker:
        for name, (data, reason) in BAD_SESSIONS.items():
            async with session(settings, WIDTH, greeted=False) as ring:
                ring.send(data)
                ring.end_sending()
                frames = [frame async for frame in until_end(ring)]
            assert isinstance(frames[-1], Broken), name
            assert reason in frames[-1].reason, name
            async with session(settings, WIDTH) as ring:
                assert await computes(ring), name
        assert psutil.pid_exists(worker.pid)


async def until_end(ring):
    while (frame := await ring.receive()) is not None:
        yield frame


async def test_a_full_cache_ends_the_session_with_that_reason(settings):
    small = replace(settings, context_length=256)
    async with running_stage(small), session(small, WIDTH) as ring:
        for number in range(4):
            assert isinstance(await ring.pass_through(a_step(number, 64, first=64 * number)), Step)
        answer = await ring.pass_through(a_step(9, 1, sequence=1))
        assert isinstance(answer, Broken) and "has no room for 1 more" in answer.reason


async def test_steps_may_come_long_before_their_answers_are_read(settings):
    count, rows = 64, 16
    async with running_stage(settings), session(settings, WIDTH) as ring:
        for number in range(count):
            ring.send(encode(a_step(number, rows, first=rows * number)))
        answers = [await ring.receive() for _ in range(count)]
        assert [answer.number for answer in answers if isinstance(answer, Step)] == list(range(count))


async def test_f16_comes_back_as_f16_and_equals_what_f32_gives(settings):
    halves = a_step().hidden.astype(np.float16)
    async with running_stage(settings), session(settings, WIDTH) as ring:
        short = await ring.pass_through(a_step(1, hidden=halves))
        long = await ring.pass_through(a_step(2, hidden=halves.astype(np.float32), sequence=1))
        assert isinstance(short, Step) and isinstance(long, Step)
        assert short.hidden.dtype == np.float16
        assert np.array_equal(short.hidden, long.hidden.astype(np.float16))


async def test_two_hundred_broken_sessions_leave_nothing_behind(settings):
    chance = random.Random(4)
    async with running_stage(settings) as worker:
        process = psutil.Process(worker.pid)

        async def break_sessions(count: int) -> tuple[int, int, int]:
            for number in range(count):
                async with session(settings, WIDTH) as ring:
                    if number % 2:
                        ring.send(encode(a_step(1, 64))[: chance.choice([3, 200, 100_000])])
                    else:
                        ring.send(encode(a_step(1, 64)) + encode(Broken("enough")))
                        assert [type(frame) async for frame in until_end(ring)] == [Step, Broken]
            async with session(settings, WIDTH) as ring:
                assert await computes(ring)
                return process.num_threads(), process.num_fds(), process.memory_info().rss

        threads, files, memory = await break_sessions(20)
        threads_then, files_then, memory_then = await break_sessions(180)
        assert (threads_then, files_then) == (threads, files)
        assert memory_then - memory < 4_000_000


async def test_altered_frames_never_end_the_child(settings):
    chance = random.Random(11549)
    answers: set[type] = set()
    good = [encode(a_step()), encode(a_step(2, commands=(Command(Operation.COPY, 0, 0, -1, 1),)))]
    async with running_stage(settings) as worker:
        for _ in range(150):
            async with session(settings, WIDTH) as ring:
                body = bytearray(chance.choice(good))
                for _ in range(chance.randrange(1, 4)):
                    body[chance.randrange(LENGTH_BYTES + 40)] = chance.randrange(256)
                ring.send(body)
                ring.end_sending()
                answers.update([type(frame) async for frame in until_end(ring)])
        async with session(settings, WIDTH) as ring:
            assert await computes(ring)
        assert answers == {Step, Broken}
        assert psutil.pid_exists(worker.pid)
