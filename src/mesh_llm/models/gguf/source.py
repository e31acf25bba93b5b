"""Where the bytes of a GGUF file come from: today a local file, later an HTTP range or a peer.

The header reader asks a `ByteSource` for random reads and nothing else. What the bytes mean is not
known here.
"""

import os
import stat
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, Protocol

from mesh_llm.core.errors import ModelDamaged, ModelNotFound


class ByteSource(Protocol):
    """Random access to one file, whole or remote."""

    @property
    def name(self) -> str:
        """What messages call it."""
        ...

    @property
    def size(self) -> int:
        """Bytes of the whole file."""
        ...

    def read(self, offset: int, length: int) -> bytes:
        """At most `length` bytes from `offset`; fewer only where the file ends. MeshError where it fails."""
        ...


class FileSource:
    """A regular file on this machine, opened by `open_file`."""

    def __init__(self, path: Path, file: BinaryIO) -> None:
        self._file = file
        self.name = str(path)
        self.size = os.fstat(file.fileno()).st_size

    def read(self, offset: int, length: int) -> bytes:
        try:
            self._file.seek(offset)
            return self._file.read(length)
        except OSError as error:
            raise ModelDamaged(
                f"{self.name} cannot be read ({error.strerror}): check the disk, then fetch the model again."
            ) from error


@contextmanager
def open_file(path: Path) -> Generator[FileSource]:
    """A source over `path`. ModelNotFound where nothing is there, ModelDamaged where it cannot be read."""
    with _opened(path) as file:
        yield FileSource(path, file)


def _opened(path: Path) -> BinaryIO:
    try:
        # A pipe or a device would block or never end: its kind is looked at before it is opened.
        if not stat.S_ISREG(path.stat().st_mode):
            raise ModelDamaged(f"{path} is not a file: name the .gguf file itself.")
        return path.open("rb")
    except FileNotFoundError:
        raise ModelNotFound(f"There is no file {path}: check the path, or fetch the model first.") from None
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise ModelDamaged(f"{path} cannot be opened ({reason}): check its path and permissions.") from error
