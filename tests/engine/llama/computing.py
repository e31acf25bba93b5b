"""llama.cpp in a process of its own, called as if it were here. Counterpart: `computing_child.py`."""

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection
from typing import Any

ANSWER_SECONDS_MAX = 60


class Refused(Exception):
    """The child's call raised; its type and words."""


class Computing:
    def __init__(self, connection: "Connection[Any, Any]") -> None:
        self._connection = connection

    def __call__(self, name: str, *arguments: Any, **keywords: Any) -> Any:
        self._connection.send((name, arguments, keywords))
        assert self._connection.poll(ANSWER_SECONDS_MAX), f"no answer to {name}"
        good, answer = self._connection.recv()
        if not good:
            raise Refused(answer)
        return answer


@contextmanager
def started(**environment: str) -> Iterator[Computing]:
    ours, theirs = socket.socketpair()
    settings = {"GOMP_SPINCOUNT": "0", "GGML_NO_BACKTRACE": "1"}
    with (
        theirs,
        Connection(ours.detach()) as connection,
        subprocess.Popen(
            [sys.executable, "-P", "-m", "tests.engine.llama.computing_child", str(theirs.fileno())],
            pass_fds=[theirs.fileno()],
            env={**os.environ, "PYTHONPATH": os.getcwd(), **settings, **environment},
        ) as process,
    ):
        theirs.close()
        try:
            yield Computing(connection)
        finally:
            process.kill()
