"""Child processes: started, listened to, stopped, reaped. The only module that spawns.

A child gets one line on its standard input, then the open pipe as its lifeline (`lifeline.py` is the other
end). Each child is its own session, so that Ctrl-C reaches the node alone, and is known by its pid: nothing
is ever killed by name.
"""

import asyncio
import signal
from asyncio.subprocess import PIPE, Process
from collections import deque
from collections.abc import AsyncIterator, Mapping, Sequence

LINE_BYTES_MAX = 1024 * 1024
"""A line of a child's output longer than this is dropped; llama-server's longest is some 10 kB."""

TAIL_LINES = 40
"""Last lines of standard error that are kept to explain a death."""

STOP_GRACE_S = 2.0
"""From closing the lifeline to SIGKILL. An idle engine needs 0.02 s; the whole node has 5 s to stop."""


class Child:
    def __init__(self, name: str, process: Process) -> None:
        self.name = name
        self._process = process
        self._tail: deque[str] = deque(maxlen=TAIL_LINES)

    @classmethod
    async def spawn(
        cls, name: str, argv: Sequence[str], environment: Mapping[str, str], first_line: bytes
    ) -> "Child":
        """Start `argv`. Raises OSError where the program cannot be started."""
        process = await asyncio.create_subprocess_exec(
            *argv,
            env=dict(environment),
            stdin=PIPE,
            stdout=PIPE,
            stderr=PIPE,
            start_new_session=True,
            limit=LINE_BYTES_MAX,
        )
        assert process.stdin is not None
        process.stdin.write(first_line.rstrip(b"\n") + b"\n")
        return cls(name, process)

    def __repr__(self) -> str:
        return f"<Child {self.name} pid={self.pid} exit={self._process.returncode}>"

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def tail(self) -> tuple[str, ...]:
        """The last lines of its standard error."""
        return tuple(self._tail)

    async def lines(self) -> AsyncIterator[str]:
        """Lines of its standard output, until it closes that or ends."""
        assert self._process.stdout is not None
        async for line in _lines(self._process.stdout):
            yield line

    async def collect_tail(self) -> None:
        """Read its standard error until the end; whoever owns the child runs this beside it."""
        assert self._process.stderr is not None
        async for line in _lines(self._process.stderr):
            self._tail.append(line)

    async def wait(self) -> int:
        """Its exit status; minus the signal's number where a signal ended it."""
        return await self._process.wait()

    async def stop(self) -> None:
        """Cut its lifeline, wait a moment, kill what is left, reap. Never raises for a child already gone."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        try:
            await asyncio.wait_for(self._process.wait(), STOP_GRACE_S)
        except TimeoutError:
            self._kill()
            await self._process.wait()

    def _kill(self) -> None:
        if self._process.returncode is None:
            self._process.send_signal(signal.SIGKILL)


async def _lines(stream: asyncio.StreamReader) -> AsyncIterator[str]:
    while True:
        try:
            line = await stream.readline()
        except ValueError:  # longer than LINE_BYTES_MAX: asyncio has dropped what it held
            continue
        if not line:
            return
        yield line.decode("utf-8", "replace").rstrip()


def describe_exit(status: int) -> str:
    """`exit status 3` or `killed by SIGABRT`."""
    if status >= 0:
        return f"exit status {status}"
    try:
        return f"killed by {signal.Signals(-status).name}"
    except ValueError:
        return f"killed by signal {-status}"
