"""Our header reader against files made by hand, and against what a stranger may send."""

import contextlib
import struct
import tracemalloc
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mesh_llm.core.errors import ModelDamaged, ModelNotFound
from mesh_llm.models.gguf.contents import Skipped
from mesh_llm.models.gguf.header import read_file_header, read_header
from tests.models.gguf.gguf_bytes import (
    ARRAY,
    BOOL,
    F32,
    I32,
    STRING,
    U8,
    U32,
    U64,
    MemorySource,
    Tensor,
    array,
    scalar,
    text,
)
from tests.models.gguf.gguf_bytes import gguf_bytes as make

WHOLE = make(
    [
        ("general.architecture", scalar(STRING, "llama")),
        ("llama.block_count", scalar(U32, 2)),
        ("llama.attention.head_count_kv", array(I32, [4, 0])),
        ("llama.rope.freq_base", scalar(F32, 0.5)),
        ("tokenizer.ggml.tokens", array(STRING, [f"token{i}" for i in range(300)])),
        ("tokenizer.ggml.add_bos_token", scalar(BOOL, True)),
        ("general.tags", array(STRING, ["a", "b"])),
    ],
    [Tensor("a", (32, 2), 2), Tensor("b", (8,), 0, 64)],
    data_bytes=96,
)


def refusal(content: bytes, size: int | None = None) -> str:
    with pytest.raises(ModelDamaged) as caught:
        read_header(MemorySource(content, size))
    return str(caught.value)


def test_metadata_and_tensors_are_read() -> None:
    header = read_header(MemorySource(WHOLE))
    assert header.version == 3 and header.alignment == 32
    assert header.metadata["general.architecture"] == "llama"
    assert header.metadata["llama.attention.head_count_kv"] == (4, 0)
    assert header.metadata["llama.rope.freq_base"] == 0.5
    assert header.metadata["tokenizer.ggml.add_bos_token"] is True
    assert header.metadata["general.tags"] == ("a", "b")
    assert [(t.name, t.dimensions, t.storage.name, t.offset, t.bytes) for t in header.tensors] == [
        ("a", (32, 2), "Q4_0", 0, 36),
        ("b", (8,), "F32", 64, 32),
    ]
    assert header.bytes_expected == len(WHOLE) == header.data_offset + 96


def test_a_vocabulary_is_counted_and_not_kept() -> None:
    assert read_header(MemorySource(WHOLE)).metadata["tokenizer.ggml.tokens"] == Skipped("string", 300)


def test_each_key_can_be_copied_from_its_span() -> None:
    header = read_header(MemorySource(WHOLE))
    packed = [WHOLE[span.offset : span.offset + span.length] for span in header.spans.values()]
    again = read_header(MemorySource(b"GGUF" + struct.pack("<IQQ", 3, 0, len(packed)) + b"".join(packed)))
    assert list(header.spans) == list(header.metadata) and again.metadata == header.metadata
    assert text("token299") in packed[list(header.spans).index("tokenizer.ggml.tokens")]


def test_version_2_is_read_as_version_3_is() -> None:
    header = read_header(MemorySource(make([("k", scalar(U8, 7))], version=2)))
    assert (header.version, header.metadata["k"]) == (2, 7)


def test_a_long_array_of_numbers_is_counted_and_its_bytes_are_never_fetched() -> None:
    zeros = array(U8, [], 8_000_000) + bytes(8_000_000)
    source = MemorySource(make([("k", zeros), ("after", scalar(U8, 1))]))
    header = read_header(source)
    assert header.metadata == {"k": Skipped("number", 8_000_000), "after": 1}
    assert source.bytes_read < 3_000_000


def test_a_long_text_is_counted_and_not_kept() -> None:
    header = read_header(MemorySource(make([("k", scalar(STRING, "x" * 2_000_000))])))
    assert header.metadata["k"] == Skipped("text", 2_000_000)


def test_many_values_together_do_not_fill_memory() -> None:
    pairs = [(f"k{i}", scalar(STRING, "x" * 1_000_000)) for i in range(20)]
    values = read_header(MemorySource(make(pairs))).metadata.values()
    assert sum(isinstance(value, str) for value in values) == 16


def test_strings_longer_than_one_read_are_stepped_over() -> None:
    words = ["x" * 700_000, "", "y" * 1_500_000] + ["z"] * 300
    header = read_header(MemorySource(make([("k", array(STRING, words)), ("after", scalar(U32, 9))])))
    assert header.metadata == {"k": Skipped("string", 303), "after": 9}


def test_text_that_is_not_utf8_is_read_with_marks_in_place() -> None:
    broken = struct.pack("<I", STRING) + text(b"a\xffb")
    assert read_header(MemorySource(make([("k", broken)]))).metadata["k"] == "a\N{REPLACEMENT CHARACTER}b"


def test_missing_weights_are_counted_from_the_header_and_the_size_alone() -> None:
    message = refusal(WHOLE, size=len(WHOLE) - 40)
    assert "40 are missing" in message and "fetch the model again" in message


@pytest.mark.parametrize("length", [4, 7, 11, 23, 40, 70, 100, 200, 1000, len(WHOLE) - 97, len(WHOLE) - 200])
def test_a_file_cut_in_its_header_is_refused(length: int) -> None:
    message = refusal(WHOLE[:length])
    assert "ends inside its header" in message or "cut off" in message


def test_bytes_after_the_last_tensor_are_no_damage() -> None:
    assert read_header(MemorySource(WHOLE + bytes(32))).bytes_expected == len(WHOLE)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "is empty"),
        (b"GG", "not a GGUF file"),
        (b"hello, world, this is text", "not a GGUF file"),
        (b"version https://git-lfs.github.com/spec/v1", "Git LFS pointer"),
        (b"\n<!DOCTYPE html>", "web page"),
        (b'{"error":"Repository not found"}', "JSON"),
        (b"PK\x03\x04", "PyTorch archive"),
        (b"GGUF" + struct.pack(">IQQ", 3, 0, 0), "big-endian"),
        (make(version=1), "version 1"),
        (make(version=99), "version 99"),
    ],
)
def test_what_is_no_gguf_is_named(content: bytes, said: str) -> None:
    assert said in refusal(content)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (make(key_count=2**63), "claims 9223372036854775808 keys"),
        (make(key_count=5000), "table of keys"),
        (make(tensor_count=2**63), "claims 9223372036854775808 tensors"),
        (make(tensor_count=5000), "table of tensors"),
        (make([("k", array(STRING, [], 2**63))]), "ends inside its header"),
        (make([("k", array(U64, [], 2**63))]), "ends inside its header"),
        (make([("k", array(STRING, ["a"] * 300, 1000))]), "ends inside its header"),
        (make([("k", struct.pack("<IQ", STRING, 2**63))]), "ends inside its header"),
        (make([("k", struct.pack("<IIQ", ARRAY, STRING, 300) + b"\xff" * 4000)]), "ends inside its header"),
        (make([("k", array(ARRAY, []))]), "array of arrays"),
        (make([("k", array(77, []))]), "unknown kind 77"),
        (make([("k", struct.pack("<I", 13) + b"1")]), "unknown kind 13"),
        (make([("k", scalar(U8, 1)), ("k", scalar(U8, 1))]), "`k` occurs twice"),
        (make([("", scalar(U32, 1))]), "no name"),
        (make([(b"\xff\xfe", scalar(U8, 1))]), "not text"),
        (make([("k" * 2000, scalar(U8, 1))]), "would have 2000 bytes"),
        (make([("general.alignment", scalar(U32, 0))]), "is 0, not a 32-bit power of two"),
        (make([("general.alignment", scalar(U32, 48))]), "is 48, not a 32-bit power of two"),
        (make([("general.alignment", scalar(U64, 32))]), "not a 32-bit power of two"),
        (make([("general.alignment", scalar(STRING, "32"))]), "not a 32-bit power of two"),
        (make([], [Tensor("w"), Tensor("w", offset=128)], data_bytes=256), "`w` occurs twice"),
        (make([], [Tensor("w" * 64)], data_bytes=128), "would have 64 bytes"),
        (make([], [Tensor(dimensions=(1, 1, 1, 1, 1))], data_bytes=64), "5 dimensions"),
        (make([], [Tensor(dimensions=(2**32, 2**32))], data_bytes=64), "impossible dimensions"),
        (make([], [Tensor(dimensions=(0, 2**63))], data_bytes=64), "impossible dimensions"),
        (make([], [Tensor(dimensions=(2**62,))], data_bytes=64), "cut off"),
        (make([], [Tensor(dimensions=(33,), storage=2)], data_bytes=64), "rows of 33"),
        (make([], [Tensor(storage=4)], data_bytes=64), "storage type 4"),
        (make([], [Tensor(storage=2**31)], data_bytes=64), "storage type 2147483648"),
        (make([], [Tensor(offset=2**64 - 32)], data_bytes=64), "expected at 0"),
        (make([], [Tensor(offset=8)], data_bytes=256), "lies at 8, expected at 0"),
    ],
)
def test_damage_is_refused_and_named(content: bytes, said: str) -> None:
    message = refusal(content)
    assert said in message
    assert "etch the model again" in message


def test_a_name_from_the_file_cannot_write_to_the_terminal() -> None:
    assert "\x1b" not in refusal(make([("\x1b[31mred", struct.pack("<I", 13))]))


def test_too_many_strings_are_refused_before_they_are_walked() -> None:
    source = MemorySource(make([("k", array(STRING, [], 5_000_000))]), size=2**40)
    with pytest.raises(ModelDamaged, match="more than 4,000,000 strings"):
        read_header(source)


def test_a_header_beyond_its_limit_is_refused_however_large_the_file() -> None:
    source = MemorySource(make([("k", array(U64, [], 2**36))]), size=2**50)
    with pytest.raises(ModelDamaged, match="more than 256 MiB"):
        read_header(source)


def test_a_source_that_has_less_than_it_said_is_refused() -> None:
    message = refusal(WHOLE[:100], size=len(WHOLE))
    assert "holds less than its" in message


def test_a_missing_file_is_told_from_a_broken_one(tmp_path: Path) -> None:
    with pytest.raises(ModelNotFound, match="There is no file"):
        read_file_header(tmp_path / "missing.gguf")


def test_a_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelDamaged, match="not a file"):
        read_file_header(tmp_path)


def test_a_path_with_a_zero_byte_is_refused() -> None:
    with pytest.raises((ModelDamaged, ModelNotFound)):
        read_file_header(Path("a\0b"))


@settings(max_examples=400, deadline=None)
@given(st.integers(0, len(WHOLE)), st.lists(st.tuples(st.integers(0, len(WHOLE) - 1), st.integers(0, 255))))
def test_cut_and_flipped_bytes_are_damage_or_nothing(length: int, flips: list[tuple[int, int]]) -> None:
    content = bytearray(WHOLE)
    for place, value in flips:
        content[place] = value
    tracemalloc.start()
    try:
        read_header(MemorySource(bytes(content[:length])))
    except ModelDamaged:
        pass
    finally:
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert peak < 1_000_000


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=400))
def test_noise_behind_a_good_start_is_damage_or_nothing(noise: bytes) -> None:
    content = b"GGUF" + struct.pack("<I", 3) + noise
    with contextlib.suppress(ModelDamaged):
        read_header(MemorySource(content, size=2**40))
