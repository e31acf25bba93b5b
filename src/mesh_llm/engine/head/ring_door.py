"""The head's end of the ring: a unix socket that it is bridged through, and one life of a ring behind it.

Threads wait here so that the pipeline's does not: one for whoever connects, one reading and one writing for
each connection. A small frame goes out on the caller's own thread where the socket takes it at once.
"""

import contextlib
import queue
import socket
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from mesh_llm.engine.ring.frames import Frame, FrameError, Shape, encode
from mesh_llm.engine.ring.sockets import FrameSocket

BRIDGE_LEFT = "the ring was taken down"

UNREAD_MAX = 8
"""Frames that wait for the pipeline; a ring that behaves has hardly more steps in flight."""


@dataclass(frozen=True, slots=True)
class Lost:
    reason: str


class RingLink:
    """One life of the ring: a connection."""

    def __init__(
        self, connection: socket.socket, shape: Shape, post: Callable[["RingLink", Frame | Lost], None]
    ) -> None:
        """`post` is called from other threads; after Lost it is not called again."""
        self._connection = connection
        self._frames = FrameSocket(connection, shape)
        self._post = post
        self._unsent: queue.SimpleQueue[memoryview | None] = queue.SimpleQueue()
        self._writing = 0
        self._count = threading.Lock()
        self._room = threading.Semaphore(UNREAD_MAX)
        self._writer = threading.Thread(target=self._write, name="ring writer", daemon=True)

    def begin(self) -> None:
        threading.Thread(target=self._read, name="ring reader", daemon=True).start()
        self._writer.start()

    def send(self, frame: Frame) -> None:
        """From one thread only. Does not wait; what cannot be written is told by Lost."""
        rest = memoryview(encode(frame))
        with self._count:
            is_idle = self._writing == 0
        if is_idle:
            with contextlib.suppress(OSError):  # full, or gone: then the reader has seen it
                rest = rest[self._connection.send(rest, socket.MSG_DONTWAIT) :]
        if rest:
            with self._count:
                self._writing += 1
            self._unsent.put(rest)

    def end(self) -> None:
        """The connection is dropped and both threads end."""
        self._frames.end()
        self._unsent.put(None)
        self._room.release()

    def taken(self) -> None:
        """A frame that was posted has been dealt with."""
        self._room.release()

    def _read(self) -> None:
        try:
            while (frame := self._frames.read()) is not None:
                self._room.acquire()
                self._post(self, frame)
            reason = BRIDGE_LEFT
        except FrameError as error:
            reason = f"the ring sent what it may not: {error}"
        except OSError as error:
            reason = f"{BRIDGE_LEFT} ({error})"
        self._post(self, Lost(reason))
        self.end()
        self._writer.join()
        self._frames.close()

    def _write(self) -> None:
        while (data := self._unsent.get()) is not None:
            try:
                self._connection.sendall(data)
            except OSError:
                self._frames.end()  # the reader tells
            with self._count:
                self._writing -= 1


def listen(path: Path) -> socket.socket:
    """Raises OSError."""
    path.unlink(missing_ok=True)  # of an earlier life of this engine
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listener.bind(str(path))
    listener.listen(1)
    return listener


def accept_for_ever(listener: socket.socket, on_connection: Callable[[socket.socket], None]) -> None:
    """Begins a thread; `on_connection` is called in it."""

    def accept() -> None:
        while True:
            connection, _ = listener.accept()
            on_connection(connection)

    threading.Thread(target=accept, name="ring door", daemon=True).start()
