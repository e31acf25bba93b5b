"""Seals of made files: what they find out, what they cost, what they leave behind."""

import os
from pathlib import Path

import pytest

from mesh_llm.models.records import Records
from mesh_llm.models.stages.composition import Copy, FileLayout, Literal
from mesh_llm.models.stages.seals import Seals

IDENTITY = "ab" * 32
HEADER, WEIGHTS = b"what it says of itself", b"weights" * 10_000
LAYOUT = FileLayout(
    (Literal(0, HEADER),),
    (Copy(len(HEADER), 0, 100, len(WEIGHTS)),),
    len(HEADER) + len(WEIGHTS),
    len(WEIGHTS),
)


@pytest.fixture
def seals(tmp_path: Path) -> Seals:
    return Seals(Records(tmp_path / "notes", tmp_path))


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "made.gguf"
    path.write_bytes(HEADER + WEIGHTS)
    return path


def alter(file: Path, place: int) -> os.stat_result:
    """One bit; gives what the file looked like."""
    before, content = file.stat(), bytearray(file.read_bytes())
    content[place] ^= 1
    file.write_bytes(content)
    return before


async def test_a_file_as_it_was_made_is_whole(seals: Seals, file: Path):
    await seals.seal(file, LAYOUT, IDENTITY)
    assert await seals.why_broken(file, LAYOUT, IDENTITY) is None


async def test_a_file_that_is_not_here_is_to_be_made_and_nobody_need_be_told_why(
    seals: Seals, tmp_path: Path
):
    assert await seals.why_broken(tmp_path / "none.gguf", LAYOUT, IDENTITY) == ""


@pytest.mark.parametrize(
    ("place", "why"), [(3, "by its header"), (len(HEADER), "bytes were altered"), (-1, "bytes were altered")]
)
async def test_an_altered_bit_breaks_the_seal(seals: Seals, file: Path, place: int, why: str):
    await seals.seal(file, LAYOUT, IDENTITY)
    alter(file, place)
    assert why in str(await seals.why_broken(file, LAYOUT, IDENTITY))


async def test_a_file_of_another_model_with_the_same_header_is_told_apart(seals: Seals, file: Path):
    await seals.seal(file, LAYOUT, IDENTITY)
    assert "another model" in str(await seals.why_broken(file, LAYOUT, "cd" * 32))


async def test_a_file_that_looks_as_it_did_is_not_read_again(seals: Seals, file: Path):
    await seals.seal(file, LAYOUT, IDENTITY)
    before = alter(file, -1)
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert await seals.why_broken(file, LAYOUT, IDENTITY) is None


async def test_what_cannot_be_read_is_broken(seals: Seals, tmp_path: Path):
    assert "cannot be read" in str(await seals.why_broken(tmp_path, LAYOUT, IDENTITY))


async def test_where_no_seal_can_be_kept_the_file_is_taken_by_its_header(tmp_path: Path, file: Path):
    seals = Seals(Records(file, tmp_path))  # no folder, so no notes either
    file.with_name(f"{file.name}.json").mkdir()
    await seals.seal(file, LAYOUT, IDENTITY)
    assert await seals.why_broken(file, LAYOUT, IDENTITY) is None


async def test_what_is_forgotten_leaves_nothing_behind(seals: Seals, file: Path, tmp_path: Path):
    await seals.seal(file, LAYOUT, IDENTITY)
    assert len(files_in(tmp_path)) > 1
    seals.forget(file)
    assert files_in(tmp_path) == [file]


def files_in(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]
