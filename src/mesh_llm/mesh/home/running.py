"""One node a home: HOME/node.lock says that one runs, HOME/running.json where commands find it.

The lock is the system's: it is let go of when the process dies, however it dies. So a file that a killed node
left behind is known to be stale.
"""

from collections.abc import Generator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import msgspec
from filelock import FileLock, Timeout

from mesh_llm.core.errors import DiskFull, RequestRefused
from mesh_llm.mesh.home.files import replace_private

LOCK_FILE = "node.lock"
RUNNING_FILE = "running.json"
RUNNING_BYTES_MAX = 4096

LOOK_SECONDS = 1.0
"""A command that looks whether a node runs holds the lock for less than a millisecond."""


@dataclass(frozen=True, slots=True)
class Running:
    """A node, as commands on the same machine find it."""

    pid: int
    api_port: int | None
    console_port: int
    control_key: str
    """What the console asks of those who want to change something."""


@contextmanager
def only_node_of(home: Path) -> Generator[None]:
    """Holds the home. Raises RequestRefused where another node has it."""
    lock = _lock(home)
    try:
        home.mkdir(mode=0o700, parents=True, exist_ok=True)
        lock.acquire(timeout=LOOK_SECONDS)
        (home / RUNNING_FILE).unlink(missing_ok=True)  # of one that was killed
    except Timeout:
        raise RequestRefused(
            f"Another node runs in {home}. Give this one a home of its own with --home."
        ) from None
    except OSError as error:
        raise DiskFull(f"{home} cannot be written to: {error.strerror}. Give another --home.") from error
    try:
        yield
    finally:
        with suppress(OSError):
            (home / RUNNING_FILE).unlink(missing_ok=True)
        lock.release()


def announce(home: Path, running: Running) -> None:
    """By the node that holds the home. Raises DiskFull."""
    replace_private(home / RUNNING_FILE, msgspec.json.encode(running))


def find_running(home: Path) -> Running | None:
    """The node that runs in this home and can be asked; None where there is none (any more)."""
    try:
        with (home / RUNNING_FILE).open("rb") as file:
            running = msgspec.json.decode(file.read(RUNNING_BYTES_MAX), type=Running)
    except (OSError, msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None
    return running if _held(home) else None


def _held(home: Path) -> bool:
    lock = _lock(home)
    try:
        lock.acquire(blocking=False)
    except Timeout:
        return True
    except OSError:
        return False
    lock.release()
    return False


def _lock(home: Path) -> FileLock:
    return FileLock(home / LOCK_FILE, mode=0o600, thread_local=False)
