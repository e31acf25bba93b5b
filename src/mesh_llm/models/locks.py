"""One process at a time writes a file of the store.

The lock is the system's: it is let go of when the process dies, however it dies, so none is ever stale.
"""

import hashlib
import logging
import os
from collections.abc import AsyncGenerator, Callable, Generator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from mesh_llm.models.disk import cannot_write, make_folder
from mesh_llm.models.patience import Sleep
from mesh_llm.models.places import ModelPlaces

PAUSE_S = 0.5

_log = logging.getLogger(__name__)


@asynccontextmanager
async def alone(
    places: ModelPlaces,
    target: Path,
    waiting: Callable[[], None],
    sleep: Sleep,
    *,
    doing: str = "downloading",
) -> AsyncGenerator[None]:
    """Holds the lock of `target`; calls `waiting` while another process has it, `doing` what this one would.
    Raises DiskFull."""
    lock = _lock(places, target)
    told = False
    while not _taken(lock, places):
        if not told:
            _log.warning("Another process is %s %s: waiting for it.", doing, target.name)
            told = True
        waiting()
        await sleep(PAUSE_S)
    try:
        yield
    finally:
        lock.release()


@contextmanager
def alone_at_once(places: ModelPlaces, target: Path) -> Generator[bool]:
    """Whether nobody else holds the lock of `target`; if so it is held inside. Raises DiskFull."""
    lock = _lock(places, target)
    if not _taken(lock, places):
        yield False
        return
    try:
        yield True
    finally:
        lock.release()


def _lock(places: ModelPlaces, target: Path) -> FileLock:
    folder = places.notes / "locks"
    make_folder(folder)
    name = hashlib.sha256(os.fsencode(os.path.abspath(target))).hexdigest()[:32]
    return FileLock(folder / f"{name}.lock", thread_local=False)


def _taken(lock: FileLock, places: ModelPlaces) -> bool:
    try:
        lock.acquire(blocking=False)
    except Timeout:
        return False
    except OSError as error:
        raise cannot_write(places.notes, error) from error
    return True
