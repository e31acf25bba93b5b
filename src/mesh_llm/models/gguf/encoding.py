"""Keys and tensors as the bytes of a GGUF header (version 3). Counterpart: `values.py` and `header.py`."""

import struct

from mesh_llm.models.gguf.contents import Scalar
from mesh_llm.models.gguf.tensors import STORAGE_TYPES, TensorInfo

VERSION = 3

_STORAGE_NUMBERS = {storage: number for number, storage in STORAGE_TYPES.items()}
_STRING, _ARRAY = 8, 9
_INT64_KIND, _INT32_KIND, _UINT32_KIND = 11, 5, 4


def pack_start(tensors: int, keys: int) -> bytes:
    return b"GGUF" + struct.pack("<IQQ", VERSION, tensors, keys)


def pack_key(key: str, value: Scalar | tuple[Scalar, ...]) -> bytes:
    """Numbers take 32 bits where they fit, as llama.cpp expects them."""
    if isinstance(value, tuple):
        kind = _kind(value)
        entries = b"".join(_packed(kind, entry) for entry in value)
        return _text(key) + struct.pack("<IIQ", _ARRAY, kind, len(value)) + entries
    kind = _kind((value,))
    return _text(key) + struct.pack("<I", kind) + _packed(kind, value)


def pack_tensor(tensor: TensorInfo) -> bytes:
    count = len(tensor.dimensions)
    dimensions = struct.pack(f"<I{count}Q", count, *tensor.dimensions)
    return (
        _text(tensor.name) + dimensions + struct.pack("<IQ", _STORAGE_NUMBERS[tensor.storage], tensor.offset)
    )


_FORMS = {4: "<I", 5: "<i", 6: "<f", 7: "<?", 11: "<q"}


def _kind(values: tuple[Scalar, ...]) -> int:
    """GGUF's number of the kind that holds them all."""
    if any(isinstance(value, str) for value in values):
        return _STRING
    if any(isinstance(value, float) for value in values):
        return 6
    if values and all(isinstance(value, bool) for value in values):
        return 7
    numbers = [int(value) for value in values]
    if min(numbers, default=0) >= 0 and max(numbers, default=0) < 2**32:
        return _UINT32_KIND
    return _INT32_KIND if min(numbers) >= -(2**31) and max(numbers) < 2**31 else _INT64_KIND


def _packed(kind: int, value: Scalar) -> bytes:
    return _text(str(value)) if kind == _STRING else struct.pack(_FORMS[kind], value)


def _text(text: str) -> bytes:
    packed = text.encode()
    return struct.pack("<Q", len(packed)) + packed
