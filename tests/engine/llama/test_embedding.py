"""Rows looked up in the file equal what the model's own graph looks up: to the last bit."""

import gguf
import numpy as np
import pytest

from mesh_llm.engine.llama.embedding import TableInFile
from tests.engine.llama import computing
from tests.engine.llama.computing import Refused

WIDTH, ROWS = 512, 40
CAN_BE_MADE = [
    kind
    for kind in gguf.GGMLQuantizationType
    if kind.name in {"F32", "F16", "BF16", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "TQ1_0", "TQ2_0"}
]
CAN_BE_READ = [
    kind
    for kind in gguf.GGMLQuantizationType
    if kind.name in {"Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K", "IQ4_NL", "IQ4_XS", "IQ2_S", "IQ3_S", "MXFP4"}
]


@pytest.fixture(scope="module")
def child():
    with computing.started() as running:
        yield running


def table_at(path, stored: np.ndarray, kind: gguf.GGMLQuantizationType, offset: int = 96) -> TableInFile:
    path.write_bytes(bytes(offset) + stored.tobytes() + b"what follows in the file")
    return TableInFile(path, offset, int(kind), WIDTH, ROWS)


@pytest.mark.real
@pytest.mark.parametrize("kind", CAN_BE_MADE, ids=lambda kind: kind.name)
def test_rows_of_every_type_are_what_its_numbers_mean(child, tmp_path, kind):
    values = np.random.default_rng(3).standard_normal((ROWS, WIDTH), np.float32)
    stored = gguf.quants.quantize(values, kind)
    child("table", table_at(tmp_path / "table", stored, kind))
    assert np.array_equal(child("rows", [3, 39, 0, 3]), gguf.quants.dequantize(stored, kind)[[3, 39, 0, 3]])


@pytest.mark.real
@pytest.mark.parametrize("kind", CAN_BE_READ, ids=lambda kind: kind.name)
def test_types_that_only_the_engine_writes_are_read_as_well(child, tmp_path, kind):
    _, block_bytes = gguf.GGML_QUANT_SIZES[kind]
    row_bytes = WIDTH // gguf.GGML_QUANT_SIZES[kind][0] * block_bytes
    chance = np.random.default_rng(4)
    stored = chance.integers(0, 60, (ROWS, row_bytes), np.uint8)  # no block's scale is a NaN
    child("table", table_at(tmp_path / "table", stored, kind))
    expected = gguf.quants.dequantize(stored, kind)[[7, 8]]
    np.testing.assert_allclose(child("rows", [7, 8]), expected, rtol=1e-6)


@pytest.mark.real
def test_a_token_beyond_the_table_and_a_table_beyond_the_file_are_refused(child, tmp_path):
    values = np.zeros((ROWS, WIDTH), np.float32)
    table = table_at(tmp_path / "table", values, gguf.GGMLQuantizationType.F32)
    child("table", table)
    assert child("rows", []).shape == (0, WIDTH)
    for token in (-1, ROWS):
        with pytest.raises(Refused, match="tokens are 0 to 39"):
            child("rows", [token])
    (tmp_path / "table").write_bytes(bytes(96 + ROWS * WIDTH * 4 - 1))
    with pytest.raises(Refused, match="ends before its token embedding"):
        child("table", table)
