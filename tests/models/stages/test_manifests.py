import asyncio
import os
from pathlib import Path
from random import Random

import pytest

from mesh_llm.core.errors import ModelDamaged
from mesh_llm.models.records import Records
from mesh_llm.models.stages.manifests import STRETCH_BYTES, Manifests
from tests.models.stages.test_chunks import manifest_of


@pytest.fixture
def records(tmp_path: Path) -> Records:
    return Records(tmp_path / "notes", tmp_path / "store")


def a_file(folder: Path, size: int) -> tuple[Path, bytes]:
    data = Random(size).randbytes(size)
    path = folder / "model.gguf"
    path.write_bytes(data)
    return path, data


@pytest.mark.parametrize("size", [1, 65_536, 65_537, STRETCH_BYTES, STRETCH_BYTES + 5])
async def test_a_manifest_is_that_of_the_whole_file(records: Records, tmp_path: Path, size: int):
    path, data = a_file(tmp_path, size)
    manifest, identity = await Manifests(records).manifest_of(path)
    assert manifest == manifest_of(data)
    assert identity.bytes == size


async def test_a_manifest_is_remembered_until_the_file_changes(records: Records, tmp_path: Path):
    path, data = a_file(tmp_path, 200_000)
    before, _ = await Manifests(records).manifest_of(path)
    status = path.stat()
    with path.open("r+b") as file:  # behind its back: size, time and inode stay
        file.write(b"x")
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert (await Manifests(records).manifest_of(path))[0] == before  # from the note, unread
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns + 1))
    assert (await Manifests(records).manifest_of(path))[0] == manifest_of(b"x" + data[1:])


@pytest.mark.parametrize("note", [b"", b"{}\n", b"\xff\xfe", b'{"chunks": 1}\n00', bytes(70_000)])
async def test_a_note_that_cannot_be_read_costs_a_reading(records: Records, tmp_path: Path, note: bytes):
    path, data = a_file(tmp_path, 70_000)
    place = records.place(path).with_suffix(".chunks")
    place.parent.mkdir(parents=True)
    place.write_bytes(note)
    assert (await Manifests(records).manifest_of(path))[0] == manifest_of(data)


async def test_two_who_ask_at_once_have_the_file_read_once(records: Records, tmp_path: Path):
    path, data = a_file(tmp_path, 3 * STRETCH_BYTES)
    manifests = Manifests(records)
    reads: list[float] = []

    async def watch() -> None:
        while True:
            reads.append(manifests.fraction(path))
            await asyncio.sleep(0)

    async with asyncio.timeout(30), asyncio.TaskGroup() as tasks:
        watching = tasks.create_task(watch())
        one = tasks.create_task(manifests.manifest_of(path))
        other = tasks.create_task(manifests.manifest_of(path))
        await asyncio.wait([one, other])
        watching.cancel()
    assert one.result()[0] == other.result()[0] == manifest_of(data)
    rising = [fraction for fraction in reads if fraction]
    assert rising == sorted(rising) and {round(each, 2) for each in rising} >= {0.33, 0.67}


async def test_a_store_that_cannot_be_written_to_gives_the_manifest_all_the_same(tmp_path: Path):
    path, data = a_file(tmp_path, 100)
    (tmp_path / "notes").write_text("no folder")
    manifest, _ = await Manifests(Records(tmp_path / "notes", tmp_path)).manifest_of(path)
    assert manifest == manifest_of(data)


async def test_an_empty_file_is_told_to_be_damaged(records: Records, tmp_path: Path):
    path, _ = a_file(tmp_path, 0)
    with pytest.raises(ModelDamaged, match="Fetch it again"):
        await Manifests(records).manifest_of(path)
