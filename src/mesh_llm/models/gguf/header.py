"""What a GGUF file says of itself before its weights begin: metadata and the table of tensors.

Counterpart of `gguf_init_from_reader` in llama.cpp's gguf.cpp (b11549), and as strict: what this reader
accepts the engine opens too. It reads through a `ByteSource`, so a file need not be here to be known.
Vocabularies are stepped over, never kept. Files come from strangers: every length is checked against the
file and against a named limit before memory is taken or a loop begins, and all damage is `ModelDamaged`.
"""

from math import prod
from pathlib import Path
from typing import NoReturn

from mesh_llm.core.errors import ModelDamaged
from mesh_llm.models.gguf.contents import Header, Span, Value
from mesh_llm.models.gguf.cursor import Cursor
from mesh_llm.models.gguf.source import ByteSource, open_file
from mesh_llm.models.gguf.tensors import STORAGE_TYPES, StorageType, TensorInfo
from mesh_llm.models.gguf.values import KIND_U32, ValueReader

MAGIC = b"GGUF"
VERSIONS = (2, 3)

KEYS_MAX = 16_384
"""Models have 20 to 80."""

KEY_BYTES_MAX = 1024
"""The specification allows 65,535; the longest key of llama.cpp has 60."""

TENSORS_MAX = 131_072
"""DeepSeek-V3 with one tensor for each expert, the most ever seen, has about 47,000."""

TENSOR_NAME_BYTES_MAX = 63
"""ggml.h: `GGML_MAX_NAME` less the closing zero."""

DIMENSIONS_MAX = 4
"""ggml.h: `GGML_MAX_DIMS`."""

ALIGNMENT_KEY = "general.alignment"
ALIGNMENT_DEFAULT = 32

_KEY_BYTES_MIN = 8 + 1 + 4 + 1
_TENSOR_BYTES_MIN = 8 + 4 + 4 + 8
_INT64_MAX = 2**63 - 1

_MISTAKEN_FOR_MODELS: dict[bytes, str] = {
    b"version https://git-lfs": "a Git LFS pointer, not the model itself: run `git lfs pull`",
    b"<": "a web page, not a model: fetch the file itself, not the page that shows it",
    b"{": "JSON, perhaps a server's error message, not a model: fetch it again",
    b"PK": "a ZIP or PyTorch archive, not a GGUF file: fetch the GGUF form of this model",
    b"ggjt": "a GGML file from before August 2023: fetch the GGUF form of this model",
}


def read_file_header(path: Path) -> Header:
    """The header of a local file. Raises ModelNotFound and ModelDamaged."""
    with open_file(path) as source:
        return read_header(source)


def read_header(source: ByteSource) -> Header:
    """Reads what comes before the weights and checks that these would be all there.

    Raises ModelDamaged where the file is no GGUF, is broken, or is shorter than its tensors need.
    """
    cursor = Cursor(source)
    version = _version(cursor, source)
    tensor_count = cursor.u64("the number of tensors")
    key_count = cursor.u64("the number of keys")
    metadata, spans, alignment = _metadata(cursor, key_count)
    tensors = _tensors(cursor, tensor_count, alignment)
    data_offset = _padded(cursor.offset, alignment) if tensors else cursor.offset
    expected = data_offset + (tensors[-1].offset + tensors[-1].bytes if tensors else 0)
    if source.size < expected:
        raise ModelDamaged(
            f"{source.name} is cut off: it has {source.size:,} of {expected:,} bytes,"
            f" {expected - source.size:,} are missing. Delete the file and fetch the model again."
        )
    return Header(source.name, version, metadata, tensors, alignment, data_offset, expected, spans)


def _version(cursor: Cursor, source: ByteSource) -> int:
    if source.size == 0:
        raise ModelDamaged(f"{source.name} is empty: delete the file and fetch the model again.")
    start = source.read(0, 32)
    if not start.startswith(MAGIC):
        _refuse_stranger(source, start)
    cursor.skip(len(MAGIC), "its first bytes")
    version = cursor.u32("its version")
    if version in VERSIONS:
        return version
    if version & 0xFFFF == 0:
        cure = "was written for big-endian machines: fetch the little-endian file of this model"
    elif version == 1:
        cure = "is a GGUF file of version 1, which the engine no longer reads: fetch a newer conversion"
    else:
        cure = f"has GGUF version {version}, known are {VERSIONS}: fetch it again, or update mesh-llm"
    raise ModelDamaged(f"{source.name} {cure}.")


def _refuse_stranger(source: ByteSource, start: bytes) -> NoReturn:
    for mark, what in _MISTAKEN_FOR_MODELS.items():
        if start.lstrip().startswith(mark):
            raise ModelDamaged(f"{source.name} is {what}.")
    raise ModelDamaged(
        f"{source.name} is not a GGUF file (it begins with {start[:4]!r}):"
        " name a .gguf file, or fetch the model again."
    )


def _metadata(cursor: Cursor, count: int) -> tuple[dict[str, Value], dict[str, Span], int]:
    _check_count(cursor, count, KEYS_MAX, _KEY_BYTES_MIN, "keys")
    values = ValueReader(cursor)
    metadata: dict[str, Value] = {}
    spans: dict[str, Span] = {}
    alignment = ALIGNMENT_DEFAULT
    for _ in range(count):
        start = cursor.offset
        key = _name(cursor, KEY_BYTES_MAX, "the name of a key")
        if not key or key in metadata:
            cursor.damaged(f"the key `{key}` occurs twice" if key else "a key has no name")
        kind = cursor.u32(f"the kind of `{key}`")
        metadata[key] = value = values.read(kind, key)
        spans[key] = Span(start, cursor.offset - start)
        if key == ALIGNMENT_KEY:
            alignment = _alignment(cursor, kind, value)
    return metadata, spans, alignment


def _alignment(cursor: Cursor, kind: int, value: Value) -> int:
    if kind != KIND_U32 or not isinstance(value, int) or value.bit_count() != 1:
        cursor.damaged(f"`{ALIGNMENT_KEY}` is {value}, not a 32-bit power of two")
    return value


def _tensors(cursor: Cursor, count: int, alignment: int) -> tuple[TensorInfo, ...]:
    _check_count(cursor, count, TENSORS_MAX, _TENSOR_BYTES_MIN, "tensors")
    tensors: dict[str, TensorInfo] = {}
    end = 0
    for _ in range(count):
        tensor = _tensor(cursor)
        if tensor.name in tensors:
            cursor.damaged(f"the tensor `{tensor.name}` occurs twice")
        if tensor.offset != end:
            cursor.damaged(f"the tensor `{tensor.name}` lies at {tensor.offset}, expected at {end}")
        tensors[tensor.name] = tensor
        end = _padded(end + tensor.bytes, alignment)
    return tuple(tensors.values())


def _tensor(cursor: Cursor) -> TensorInfo:
    name = _name(cursor, TENSOR_NAME_BYTES_MAX, "the name of a tensor")
    what = f"the tensor `{name}`"
    dimension_count = cursor.u32(what)
    if dimension_count > DIMENSIONS_MAX:
        cursor.damaged(f"{what} has {dimension_count} dimensions, {DIMENSIONS_MAX} are the most")
    dimensions = tuple(cursor.u64(what) for _ in range(dimension_count))
    if max(dimensions, default=0) > _INT64_MAX or prod(dimensions) > _INT64_MAX:
        cursor.damaged(f"{what} has impossible dimensions {dimensions}")
    storage = _storage(cursor, what)
    row = dimensions[0] if dimensions else 1
    if row % storage.block_elements:
        cursor.damaged(f"{what} has rows of {row}, no multiple of {storage.name}'s {storage.block_elements}")
    size = prod(dimensions) // storage.block_elements * storage.block_bytes
    return TensorInfo(name, dimensions, storage, cursor.u64(what), size)


def _storage(cursor: Cursor, what: str) -> StorageType:
    number = cursor.u32(what)
    storage = STORAGE_TYPES.get(number)
    if storage is None:
        cursor.damaged(f"{what} has the storage type {number}, which the engine does not know")
    return storage


def _name(cursor: Cursor, bytes_max: int, what: str) -> str:
    length = cursor.u64(what)
    if length > bytes_max:
        cursor.damaged(f"{what} would have {length} bytes, {bytes_max} are the most")
    try:
        return cursor.take(length, what).decode("utf-8")
    except UnicodeDecodeError:
        cursor.damaged(f"{what} is not text")


def _check_count(cursor: Cursor, count: int, count_max: int, bytes_min: int, what: str) -> None:
    if count > count_max:
        cursor.damaged(f"it claims {count} {what}, {count_max} are the most")
    cursor.require(count * bytes_min, f"the table of {what}")


def _padded(offset: int, alignment: int) -> int:
    return (offset + alignment - 1) // alignment * alignment
