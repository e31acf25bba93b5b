"""The door to the space on a disk: is there enough, and what it means when there is not."""

import errno
import os
import shutil
from collections.abc import Callable
from pathlib import Path

from mesh_llm.core.errors import DiskFull
from mesh_llm.core.quantities import MIB, human_bytes

RESERVE_BYTES = 256 * MIB
"""Left free for everybody else on that disk: logs, sidecars, a browser's cache."""

FreeBytes = Callable[[Path], int]

FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
"""How a system says that no more can be written."""
_FORBIDDEN = frozenset({errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EEXIST})


def free_bytes(folder: Path) -> int:
    """What this user may still write there. Raises OSError."""
    return shutil.disk_usage(folder).free


def make_folder(folder: Path) -> None:
    """Raises DiskFull where nothing can be stored there."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise cannot_write(folder, error) from error


def check_space(folder: Path, needed: int, subject: str, free: FreeBytes = free_bytes) -> None:
    """Raises DiskFull unless `needed` bytes fit into `folder` and RESERVE_BYTES remain."""
    available = free(folder)
    if needed > 0 and available < needed + RESERVE_BYTES:
        raise DiskFull(
            f"{subject} needs {human_bytes(needed)} more in {folder}, where {human_bytes(available)} are "
            f"free and {human_bytes(RESERVE_BYTES)} shall stay so: delete something, or set MESH_LLM_MODELS "
            "to a folder on a larger disk."
        )


def cannot_write(path: Path, error: OSError) -> DiskFull:
    """What to tell the person whose disk refuses; an error that means something else is raised as it is."""
    if error.errno in FULL:
        return DiskFull(
            f"The disk is full, or a limit is reached, at {path} ({error.strerror}): delete something, or "
            "set MESH_LLM_MODELS to a folder on a larger disk, and try again."
        )
    if error.errno in _FORBIDDEN:
        return DiskFull(
            f"{path} cannot be written ({error.strerror}): allow it, or set MESH_LLM_MODELS elsewhere."
        )
    raise error


def settle(path: Path, final: Path) -> None:
    """Gives a finished file its name, so that a power cut leaves it whole or not at all. Raises OSError."""
    with path.open("rb") as file:
        os.fsync(file.fileno())
    path.replace(final)
    folder = os.open(final.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
