"""A node that serves a whole module of tests: beside any event loop, its log in a file that may grow."""

import json
import subprocess
import time
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from tests.interaction.nodes import BOUND_S, COMMAND, environment

POLL_S = 0.05


@dataclass(frozen=True)
class BackgroundNode:
    home: Path
    process: subprocess.Popen[bytes]
    log_file: Path

    @property
    def memory_bytes(self) -> int:
        """Of the node itself, without its engines."""
        return psutil.Process(self.process.pid).memory_info().rss

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.wait_for('api_port')}"

    @property
    def invite(self) -> str:
        """The token that it printed at its start."""
        return self.wait_for("invite")

    def log(self) -> list[dict[str, Any]]:
        lines = self.log_file.read_text("utf-8").splitlines()
        return [json.loads(line) for line in lines if line.startswith("{") and line.endswith("}")]

    def wait_for(self, field: str) -> Any:
        return self._wait_for(field, lambda line: field in line)[field]

    def wait_for_message(self, part: str) -> None:
        self._wait_for(part, lambda line: part in line["message"])

    def _wait_for(self, what: str, is_it: Any) -> dict[str, Any]:
        for _ in range(int(BOUND_S / POLL_S)):
            for line in self.log():
                if is_it(line):
                    return line
            assert self.process.poll() is None, self.log_file.read_text("utf-8")
            time.sleep(POLL_S)
        raise AssertionError(f"no {what!r} within {BOUND_S:.0f} s")


@contextmanager
def in_background(store: Path, home: Path, *flags: str) -> Generator[BackgroundNode]:
    """Killed at the end if it does not stop by itself."""
    home.mkdir(parents=True, exist_ok=True)
    log_file = home.parent / f"{home.name}.log"
    command = [*COMMAND, "--port", "0", "--console", "0", "--log-format", "json", *flags]
    with (
        log_file.open("wb") as log,
        subprocess.Popen(command, env=environment(store, home), stderr=log) as process,
    ):
        try:
            yield BackgroundNode(home, process, log_file)
        finally:
            process.terminate()
            try:
                process.wait(BOUND_S)
            finally:
                process.kill()
