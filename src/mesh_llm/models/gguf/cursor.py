"""Reads numbers and strings from front to back, and believes no length before checking it.

Counterpart of `gguf_reader` in llama.cpp's gguf.cpp. Knows nothing of keys and tensors. Reads go forward
in windows, so that a source with slow reads is asked a few times only, and never for the same bytes twice.
"""

import struct
from typing import NoReturn

from mesh_llm.core.errors import ModelDamaged
from mesh_llm.core.quantities import MIB
from mesh_llm.models.gguf.source import ByteSource

WINDOW_BYTES = MIB
"""One read. The largest headers of today are about 20 MiB: twenty requests where each costs a round trip."""

HEADER_BYTES_MAX = 256 * MIB
"""Ten times the largest header known (those that carry a whole `tokenizer.huggingface.json`)."""

_LENGTH = struct.Struct("<Q")
_COUNT = struct.Struct("<I")


class Cursor:
    """A place in a source. `limit` is where reading must stop: the end of the file or `HEADER_BYTES_MAX`."""

    def __init__(self, source: ByteSource) -> None:
        self._source = source
        self._window = b""
        self._window_start = 0
        self.offset = 0
        self.limit = min(source.size, HEADER_BYTES_MAX)

    def damaged(self, what: str) -> NoReturn:
        # Names come from the file: a hostile one must not write to a terminal what it likes.
        shown = "".join(sign if sign.isprintable() else "?" for sign in what[:300])
        raise ModelDamaged(
            f"{self._source.name} is damaged: {shown}. Delete the file and fetch the model again."
        )

    def require(self, count: int, what: str) -> None:
        """`count` bytes must be left, before anything is read, kept or looped over."""
        if count <= self.limit - self.offset:
            return
        if self.limit < self._source.size:
            self.damaged(f"its header would need more than {HEADER_BYTES_MAX // MIB} MiB ({what})")
        self.damaged(f"the file ends inside its header, in {what}")

    def take(self, count: int, what: str) -> bytes:
        """The next `count` bytes. The caller keeps `count` small."""
        self.require(count, what)
        start = self.offset - self._window_start
        if start + count > len(self._window):
            self._refill(count)
            start = 0
        self.offset += count
        return self._window[start : start + count]

    def skip(self, count: int, what: str) -> None:
        self.require(count, what)
        self.offset += count

    def u32(self, what: str) -> int:
        return _COUNT.unpack(self.take(4, what))[0]

    def u64(self, what: str) -> int:
        return _LENGTH.unpack(self.take(8, what))[0]

    def skip_strings(self, count: int, what: str) -> None:
        """Steps over `count` strings: the loop a vocabulary of 262,144 goes through, hence written flat."""
        self.require(8 * count, what)
        unpack = _LENGTH.unpack_from
        window, position = self._window, self.offset - self._window_start
        for _ in range(count):
            if position + 8 > len(window):
                self.offset = self._window_start + position
                self.require(8, what)
                self._refill(8)
                window, position = self._window, 0
            position += 8 + unpack(window, position)[0]
        self.skip(self._window_start + position - self.offset, what)

    def _refill(self, count: int) -> None:
        wanted = min(max(WINDOW_BYTES, count), self._source.size - self.offset)
        self._window = self._source.read(self.offset, wanted)
        self._window_start = self.offset
        if len(self._window) < count:
            self.damaged(f"it holds less than its {self._source.size} bytes")
