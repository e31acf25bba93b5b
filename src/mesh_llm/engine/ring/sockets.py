"""Frames over a socket, for threads that may wait and for tasks that may not.

Counterpart: `frames.py` says what the bytes mean. No length is believed before it is held against the shape
of the ring.
"""

import asyncio
import contextlib
import io
import socket

from mesh_llm.engine.ring.frames import LENGTH_BYTES, Frame, FrameError, Shape, body_length, decode, encode

BUFFER_BYTES = 64 * 1024
"""A step of one row comes in one piece with its length: one call into the system for both."""

CUT_OFF = "the stream ended within a frame"


class FrameSocket:
    """Both directions of one connection; one thread may read while another writes."""

    def __init__(self, connection: socket.socket, shape: Shape) -> None:
        self._connection = connection
        self._shape = shape
        self._stream = io.BufferedReader(socket.SocketIO(connection, "r"), BUFFER_BYTES)

    def read(self) -> Frame | None:
        """The next frame; None where the stream ends between two. Raises FrameError, OSError."""
        length = self._stream.read(LENGTH_BYTES)
        if not length:
            return None
        if len(length) < LENGTH_BYTES:
            raise FrameError(CUT_OFF)
        body = bytearray(body_length(length, self._shape))
        if self._stream.readinto(body) < len(body):
            raise FrameError(CUT_OFF)
        return decode(body, self._shape)

    def write(self, frame: Frame) -> None:
        """Waits while the other side does not read. Raises OSError."""
        self._connection.sendall(encode(frame))

    def end(self) -> None:
        """For both directions; a thread that reads or writes is woken."""
        with contextlib.suppress(OSError):  # the other side was first
            self._connection.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Once no thread uses it any more."""
        self.end()
        self._connection.close()


async def read_frame(stream: asyncio.StreamReader, shape: Shape) -> Frame | None:
    """The next frame; None where the stream ends between two. Raises FrameError, OSError."""
    try:
        length = await stream.readexactly(LENGTH_BYTES)
    except asyncio.IncompleteReadError as error:
        if not error.partial:
            return None
        raise FrameError(CUT_OFF) from None
    count = body_length(length, shape)
    try:
        return decode(await stream.readexactly(count), shape)
    except asyncio.IncompleteReadError:
        raise FrameError(CUT_OFF) from None
