import json
from pathlib import Path

import numpy as np
import pytest

from mesh_llm.core.errors import ModelDamaged
from mesh_llm.engine.experts.reference import (
    ROWS_BYTES_MAX,
    Reference,
    RowsWriter,
    bounded,
    read_reference,
    rows_of,
    rows_path,
    scored,
    write_note,
)

MODEL = "ab" * 16
REFERENCE = Reference(((1, 2, 3, 0), (3, 2, 1)), 4, 12.5)
ROWS = [np.array([-1, -2, -3, -1000], np.float32), np.array([-4, -5, -6, -7], np.float32)]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "reference.json"
    with rows_path(path).open("wb") as file:
        writer = RowsWriter(file)
        for row in ROWS:
            writer.add(row)
    write_note(path, MODEL, REFERENCE, writer.checksum)
    return path


def test_what_the_full_model_said_comes_back(path: Path):
    assert read_reference(path, MODEL) == REFERENCE
    assert scored(REFERENCE.chunks) == 2
    assert np.array_equal(list(rows_of(path, REFERENCE)), ROWS)


def test_the_second_half_of_a_chunk_is_scored():
    assert scored([range(512)] * 4) == 1020


def test_the_largest_vocabulary_gets_all_chunks_and_a_larger_one_fewer():
    chunks = [list(range(512))] * 4
    assert len(bounded(chunks, 262_144)) == 4
    assert len(bounded(chunks, 600_000)) == 1
    assert bounded(chunks, ROWS_BYTES_MAX) == []


def test_nothing_is_there_until_the_note_is(path: Path):
    path.unlink()
    assert read_reference(path, MODEL) is None


def test_rows_that_are_gone_are_asked_for_again(path: Path):
    rows_path(path).unlink()
    assert read_reference(path, MODEL) is None


def test_rows_that_were_altered_or_cut_off_are_refused(path: Path):
    rows = rows_path(path).read_bytes()
    rows_path(path).write_bytes(rows[:-1] + b"!")
    with pytest.raises(ModelDamaged, match="altered"):
        read_reference(path, MODEL)
    rows_path(path).write_bytes(rows[:-1])
    with pytest.raises(ModelDamaged, match="16 bytes"):
        read_reference(path, MODEL)


@pytest.mark.parametrize(
    "changes",
    [
        {"version": 0},
        {"model": "cd" * 16},
        {"chunks": []},
        {"chunks": [[1, 2]]},
        {"chunks": [[1, 2, -3]]},
        {"chunks": [[1, 2, 4]]},
        {"chunks": [[1, 2, "3"]]},
        {"chunks": {"0": [1, 2, 3]}},
        {"vocabulary": None},
        {"perplexity": 0.5},
        {"perplexity": float("nan")},
        {"checksum": "0"},
    ],
)
def test_a_note_that_makes_no_sense_is_refused(path: Path, changes: dict[str, object]):
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    with pytest.raises(ModelDamaged, match="asked again"):
        read_reference(path, MODEL)


def test_a_note_that_is_cut_off_is_refused(path: Path):
    path.write_text(path.read_text()[:-5])
    with pytest.raises(ModelDamaged, match="cut off"):
        read_reference(path, MODEL)
