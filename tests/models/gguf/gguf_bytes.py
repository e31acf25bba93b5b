"""GGUF files made by hand, byte by byte, so that a test can also make wrong ones."""

import struct
from collections.abc import Sequence
from dataclasses import dataclass

U8, U16, U32, I32, F32, BOOL, STRING, ARRAY, U64 = 0, 2, 4, 5, 6, 7, 8, 9, 10

_FORMS = {U8: "<B", U16: "<H", U32: "<I", I32: "<i", F32: "<f", BOOL: "<?", U64: "<Q"}


class MemorySource:
    """A file in memory; counts what was read of it."""

    def __init__(self, content: bytes, size: int | None = None) -> None:
        self._content = content
        self.name = "test.gguf"
        self.size = len(content) if size is None else size
        self.bytes_read = 0

    def read(self, offset: int, length: int) -> bytes:
        part = self._content[offset : offset + length]
        self.bytes_read += len(part)
        return part


def text(value: str | bytes) -> bytes:
    packed = value.encode() if isinstance(value, str) else value
    return struct.pack("<Q", len(packed)) + packed


def scalar(kind: int, value: object) -> bytes:
    packed = text(value) if isinstance(value, str) else struct.pack(_FORMS[kind], value)
    return struct.pack("<I", kind) + packed


def array(kind: int, values: Sequence[object], count: int | None = None) -> bytes:
    """A `count` other than the number of values is a lie."""
    packed = [text(v) if isinstance(v, str) else struct.pack(_FORMS[kind], v) for v in values]
    return struct.pack("<IIQ", ARRAY, kind, len(values) if count is None else count) + b"".join(packed)


@dataclass
class Tensor:
    name: str | bytes = "w"
    dimensions: Sequence[int] = (32,)
    storage: int = 0
    offset: int = 0

    def packed(self) -> bytes:
        sizes = struct.pack(f"<I{len(self.dimensions)}Q", len(self.dimensions), *self.dimensions)
        return text(self.name) + sizes + struct.pack("<IQ", self.storage, self.offset)


def gguf_bytes(
    pairs: Sequence[tuple[str | bytes, bytes]] = (),
    tensors: Sequence[Tensor] = (),
    *,
    data_bytes: int = 0,
    version: int = 3,
    key_count: int | None = None,
    tensor_count: int | None = None,
    alignment: int = 32,
) -> bytes:
    """A whole file; a count that is given replaces the true one."""
    head = b"GGUF" + struct.pack(
        "<IQQ",
        version,
        len(tensors) if tensor_count is None else tensor_count,
        len(pairs) if key_count is None else key_count,
    )
    head += b"".join(text(key) + value for key, value in pairs)
    head += b"".join(tensor.packed() for tensor in tensors)
    padding = -len(head) % alignment if tensors else 0
    return head + bytes(padding + data_bytes)
