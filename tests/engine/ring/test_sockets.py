import asyncio
import contextlib
import socket
import struct
import threading

import numpy as np
import pytest

from mesh_llm.engine.ring.frames import Broken, FrameError, Hello, Shape, Step, encode
from mesh_llm.engine.ring.sockets import FrameSocket, read_frame

SHAPE = Shape(width=4096, batch=64, sequences=4, context=256)


@pytest.fixture
def pair():
    left, right = socket.socketpair()
    left.settimeout(10)
    right.settimeout(10)
    with left, right:
        yield FrameSocket(left, SHAPE), right


def a_large_step() -> Step:
    rows = np.zeros(64, np.int32)
    return Step(1, (), rows, rows, np.full((64, 4096), 0.5, np.float32))


def test_frames_larger_than_any_buffer_arrive_whole_and_in_order(pair):
    reading, other = pair
    writer = FrameSocket(other, SHAPE)
    frames = [Hello(SHAPE), a_large_step(), Broken("that was all")]
    thread = threading.Thread(target=lambda: [writer.write(frame) for frame in frames] and writer.close())
    thread.start()
    hello, step, broken = reading.read(), reading.read(), reading.read()
    assert (hello, broken) == (frames[0], frames[2])
    assert isinstance(step, Step) and step.hidden.tobytes() == a_large_step().hidden.tobytes()
    assert reading.read() is None
    thread.join(10)
    assert not thread.is_alive()


@pytest.mark.parametrize("kept", [1, 3, 4, 10, len(encode(Hello(SHAPE))) - 1])
def test_a_stream_that_ends_within_a_frame_is_told_from_one_that_ends(pair, kept):
    reading, other = pair
    other.sendall(encode(Hello(SHAPE))[:kept])
    other.close()
    with pytest.raises(FrameError, match="ended within"):
        reading.read()


def test_an_end_wakes_a_thread_that_reads(pair):
    reading, _ = pair
    ended = threading.Event()

    def read() -> None:
        with contextlib.suppress(OSError):
            reading.read()
        ended.set()

    thread = threading.Thread(target=read)
    thread.start()
    reading.end()
    assert ended.wait(10)
    thread.join(10)


async def stream_of(data: bytes) -> asyncio.StreamReader:
    stream = asyncio.StreamReader()
    stream.feed_data(data)
    stream.feed_eof()
    return stream


async def test_the_asynchronous_reader_reads_the_same():
    stream = await stream_of(encode(Hello(SHAPE)) + encode(a_large_step()))
    assert await read_frame(stream, SHAPE) == Hello(SHAPE)
    step = await read_frame(stream, SHAPE)
    assert isinstance(step, Step) and step.hidden.shape == (64, 4096)
    assert await read_frame(stream, SHAPE) is None


async def test_it_refuses_what_is_cut_off_or_too_long():
    for data in (b"\x01", encode(Hello(SHAPE))[:-1]):
        with pytest.raises(FrameError, match="ended within"):
            await read_frame(await stream_of(data), SHAPE)
    with pytest.raises(FrameError, match="a frame of"):
        await read_frame(await stream_of(struct.pack("<I", 2**31)), SHAPE)
