"""Our header reader says what llama.cpp's own Python package says, key by key and tensor by tensor."""

from pathlib import Path

import gguf
import numpy as np
import pytest

from mesh_llm.models.gguf.contents import Header, Skipped
from mesh_llm.models.gguf.header import read_file_header
from mesh_llm.models.gguf.tensors import STORAGE_TYPES

OWN_KEYS_OF_THE_PACKAGE = {"GGUF.version", "GGUF.tensor_count", "GGUF.kv_count"}


def expected_value(field: gguf.ReaderField) -> object:
    if field.types[0] != gguf.GGUFValueType.ARRAY:
        return field.contents()
    if len(field.types) > 1 and field.types[1] == gguf.GGUFValueType.STRING:
        return tuple(field.contents()) if len(field.data) <= 256 else Skipped("string", len(field.data))
    return tuple(field.contents()) if len(field.data) <= 4096 else Skipped("number", len(field.data))


def assert_same(header: Header, path: Path) -> None:
    reader = gguf.GGUFReader(path)
    fields = {key: field for key, field in reader.fields.items() if key not in OWN_KEYS_OF_THE_PACKAGE}
    assert list(header.metadata) == list(fields)
    for key, field in fields.items():
        assert header.metadata[key] == expected_value(field), key
    if header.tensors:
        assert header.data_offset == reader.data_offset
    ours = [
        (t.name, t.dimensions, t.storage.name, header.data_offset + t.offset, t.bytes, t.elements)
        for t in header.tensors
    ]
    theirs = [
        (t.name, tuple(t.shape), t.tensor_type.name, t.data_offset, t.n_bytes, t.n_elements)
        for t in reader.tensors
    ]
    assert ours == theirs


@pytest.mark.real
@pytest.mark.parametrize("model", ["smollm2", "gemma3"])
def test_real_models_are_read_as_the_package_reads_them(model: str, request: pytest.FixtureRequest) -> None:
    path: Path = request.getfixturevalue(model)
    header = read_file_header(path)
    assert_same(header, path)
    assert header.bytes_expected == path.stat().st_size


def written(path: Path, writer: gguf.GGUFWriter) -> None:
    writer.write_header_to_file(path)
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def test_every_kind_of_value_is_read_as_the_package_writes_it(tmp_path: Path) -> None:
    path = tmp_path / "kinds.gguf"
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_uint8("k.u8", 255)
    writer.add_int8("k.i8", -128)
    writer.add_uint16("k.u16", 65535)
    writer.add_int16("k.i16", -32768)
    writer.add_uint32("k.u32", 2**32 - 1)
    writer.add_int32("k.i32", -(2**31))
    writer.add_uint64("k.u64", 2**64 - 1)
    writer.add_int64("k.i64", -(2**63))
    writer.add_float32("k.f32", 0.25)
    writer.add_float64("k.f64", 1e300)
    writer.add_bool("k.yes", True)
    writer.add_bool("k.no", False)
    writer.add_string("k.text", "Grüße 🦙")
    writer.add_array("k.ints", [1, -2, 3])
    writer.add_array("k.floats", [0.5, -1.5])
    writer.add_array("k.bools", [True, False])
    writer.add_array("k.words", ["a", "", "ß"])
    writer.add_array("k.vocabulary", [f"t{i}" for i in range(1000)])
    writer.add_array("k.scores", [float(i) for i in range(5000)])
    written(path, writer)
    assert_same(read_file_header(path), path)


def test_tensors_of_several_storage_types_and_shapes_are_read(tmp_path: Path) -> None:
    path = tmp_path / "tensors.gguf"
    writer = gguf.GGUFWriter(path, "qwen3moe")
    writer.add_custom_alignment(64)
    for storage in ("F32", "F16", "Q8_0", "Q4_0", "Q5_1", "BF16"):
        kind = gguf.GGMLQuantizationType[storage]
        block, size = gguf.GGML_QUANT_SIZES[kind]
        raw = np.zeros((8, 3, 256 // block * size), dtype=np.uint8)
        writer.add_tensor(f"blk.0.ffn_{storage}_exps.weight", raw, raw_dtype=kind)
    writer.add_tensor("norm", np.ones(7, dtype=np.float32))
    written(path, writer)
    header = read_file_header(path)
    assert_same(header, path)
    assert header.alignment == 64


def test_each_part_of_a_split_model_is_read(tmp_path: Path) -> None:
    writer = gguf.GGUFWriter(tmp_path / "m.gguf", "llama", split_max_tensors=2)
    for index in range(5):
        writer.add_tensor(f"w{index}", np.ones((4, 32), dtype=np.float32))
    written(tmp_path / "m.gguf", writer)
    parts = sorted(tmp_path.glob("m-*.gguf"))
    assert len(parts) == 3
    for number, path in enumerate(parts):
        header = read_file_header(path)
        assert_same(header, path)
        assert (header.metadata["split.no"], header.metadata["split.count"]) == (number, 3)


def test_storage_types_have_the_sizes_that_the_package_knows() -> None:
    for number, ours in STORAGE_TYPES.items():
        if number not in list(gguf.GGMLQuantizationType) or ours.name == "Q8_1":
            continue  # Q8_1: the package says 40 bytes, ggml-common.h 36; no file holds it.
        kind = gguf.GGMLQuantizationType(number)
        assert (ours.name, (ours.block_elements, ours.block_bytes)) == (
            kind.name,
            gguf.GGML_QUANT_SIZES[kind],
        )
