"""Links whose delay can be changed while they carry: TCP for llama.cpp's RPC, the ring for stages.

What is sent arrives one delay later, in order; how much is on its way is not limited. Threads that sleep, for
an event loop's timers are good to a millisecond only.
"""

import contextlib
import queue
import socket
import threading
import time
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager

PIECE_BYTES = 1 << 20


class Delay:
    """One way, in seconds; shared by all links of a candidate. Changed only while nothing is on its way."""

    def __init__(self) -> None:
        self.seconds = 0.0


class Pump:
    """What arrives at one socket is sent from another, a delay later; the end of it too."""

    def __init__(self, source: socket.socket, target: socket.socket, delay: Delay) -> None:
        self._source = source
        self._target = target
        self._delay = delay
        self._waiting: queue.SimpleQueue[tuple[float, bytes]] = queue.SimpleQueue()
        for work in (self._read, self._write_later):
            threading.Thread(target=work, name="bench link", daemon=True).start()

    def _read(self) -> None:
        data = b"something"
        while data:
            try:
                data = self._source.recv(PIECE_BYTES)
            except OSError:
                data = b""
            if self._delay.seconds == 0:
                self._write(data)
            else:
                self._waiting.put((time.perf_counter() + self._delay.seconds, data))
        self._waiting.put((0.0, b""))

    def _write_later(self) -> None:
        data = b"something"
        while data:
            due, data = self._waiting.get()
            time.sleep(max(0.0, due - time.perf_counter()))
            self._write(data)

    def _write(self, data: bytes) -> None:
        with contextlib.suppress(OSError):  # whoever it is for has gone
            if data:
                self._target.sendall(data)
            else:
                self._target.shutdown(socket.SHUT_WR)


@asynccontextmanager
async def relayed(port: int, delay: Delay) -> AsyncGenerator[int]:
    """A port of this machine behind which `port` lies, both ways delayed."""
    with contextlib.closing(socket.create_server(("127.0.0.1", 0))) as listener:
        threading.Thread(target=_accept, args=(listener, port, delay), name="bench door", daemon=True).start()
        yield listener.getsockname()[1]


def _accept(listener: socket.socket, port: int, delay: Delay) -> None:
    with contextlib.suppress(OSError):  # the listener was closed
        while True:
            near, _ = listener.accept()
            far = socket.create_connection(("127.0.0.1", port))
            for one in (near, far):
                one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, True)
            Pump(near, far, delay)
            Pump(far, near, delay)


@asynccontextmanager
async def ring(sockets: Sequence[str], delay: Delay) -> AsyncGenerator[None]:
    """Children that listen on these unix sockets, each linked to the next and the last to the first."""
    with contextlib.ExitStack() as stack:
        links: list[socket.socket] = []
        for path in sockets:
            link = stack.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM))
            link.connect(path)
            links.append(link)
            stack.callback(_hang_up, link)
        for place, link in enumerate(links):
            Pump(link, links[(place + 1) % len(links)], delay)
        yield


def _hang_up(link: socket.socket) -> None:
    """A thread that reads from it is woken."""
    with contextlib.suppress(OSError):
        link.shutdown(socket.SHUT_RDWR)
