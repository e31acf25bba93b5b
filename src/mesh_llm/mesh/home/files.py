"""Small private files of the home: written whole or not at all, and never readable by others."""

import contextlib
import os
from pathlib import Path

from mesh_llm.core.errors import DiskFull


def replace_private(path: Path, data: bytes) -> None:
    """Mode 0600 from the first byte on; who is killed here leaves the old file. Raises DiskFull where the
    home cannot be written to."""
    unfinished = path.with_name(f"{path.name}.{os.getpid()}.new")
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        unfinished.unlink(missing_ok=True)
        descriptor = os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        unfinished.replace(path)
        sync_folder(path.parent)
    except OSError as error:
        raise DiskFull(
            f"{path} cannot be written: {error.strerror}. Make room there, or give another --home."
        ) from error
    finally:
        with contextlib.suppress(OSError):
            unfinished.unlink(missing_ok=True)


def sync_folder(folder: Path) -> None:
    """So that a name outlives a loss of power, as the bytes behind it do. Raises OSError."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
