"""Stage files that are kept: made once, never pruned while in use, gone when nobody needs them."""

import asyncio
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from mesh_llm.core.errors import DownloadFailed, RequestRefused
from mesh_llm.core.progress import Progress
from mesh_llm.core.stages import LayerRange
from mesh_llm.models.gguf.contents import Header
from mesh_llm.models.gguf.header import read_file_header
from mesh_llm.models.places import ModelPlaces
from mesh_llm.models.shelf import store_models
from mesh_llm.models.stages import readings
from mesh_llm.models.stages.ranges import FileRanges
from mesh_llm.models.stages.store import StageStore
from tests.models.conftest import places_at
from tests.models.stages.test_writing import Counting
from tests.tiny_models import write_tiny_model

IDENTITY = "ab" * 32
MIDDLE = LayerRange(2, 4)

CHILD = """
import asyncio, sys
from pathlib import Path
from mesh_llm.core.stages import LayerRange
from mesh_llm.models.gguf.header import read_file_header
from mesh_llm.models.places import ModelPlaces
from mesh_llm.models.stages.ranges import FileRanges
from mesh_llm.models.stages.store import StageStore

async def main():
    model, folder = Path(sys.argv[1]), Path(sys.argv[2])
    places = ModelPlaces(store=folder, hub_cache=folder / "cache", own_catalogue=folder / "c.toml")
    held = StageStore(places).stage(
        sys.argv[3], LayerRange(2, 4), is_head=False,
        parts=[read_file_header(model)], source=FileRanges([model]),
    )
    async with held as file:
        print(file, flush=True)
        await asyncio.sleep(100)

asyncio.run(main())
"""


@pytest.fixture
def own_places(tmp_path: Path) -> ModelPlaces:
    return places_at(tmp_path, "http://127.0.0.1:1")


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return write_tiny_model(tmp_path / "m.gguf", "llama")[0]


def parts(model: Path) -> Sequence[Header]:
    return [read_file_header(model)]


async def made(store: StageStore, model: Path, layers: LayerRange, *, is_head: bool = False) -> Path:
    held = store.stage(IDENTITY, layers, is_head=is_head, parts=parts(model), source=FileRanges([model]))
    async with asyncio.timeout(20), held as file:
        return file


async def test_a_stage_is_made_once(own_places: ModelPlaces, model: Path) -> None:
    store, source = StageStore(own_places), Counting(FileRanges([model]))
    reports: list[Progress] = []
    for _ in range(2):
        async with store.stage(
            IDENTITY, MIDDLE, is_head=False, parts=parts(model), source=source, report=reports.append
        ) as file:
            assert read_file_header(file).metadata["llama.block_count"] == 2
            assert file == store.folder_of("stage", IDENTITY) / "2-4.gguf"
            first = list(source.asked)
    assert source.asked == first
    assert reports[-1].done == reports[-1].total == file.stat().st_size


async def test_a_stage_of_another_version_is_made_anew(own_places: ModelPlaces, model: Path) -> None:
    store = StageStore(own_places)
    file = await made(store, model, MIDDLE)
    right = file.read_bytes()
    file.write_bytes(right.replace(b"llama.block_count", b"llama.block_kount"))
    assert (await made(store, model, MIDDLE)).read_bytes() == right
    file.write_bytes(right[:-1])
    assert (await made(store, model, MIDDLE)).read_bytes() == right


async def test_a_stage_of_which_one_byte_was_altered_is_made_anew_and_people_are_told(
    own_places: ModelPlaces, model: Path, caplog: pytest.LogCaptureFixture
) -> None:
    store = StageStore(own_places)
    file = await made(store, model, MIDDLE)
    right = file.read_bytes()
    file.write_bytes(right[:-1] + bytes([right[-1] ^ 1]))
    assert (await made(store, model, MIDDLE)).read_bytes() == right
    assert "2-4.gguf on this disk is made anew: its bytes were altered" in caplog.text


async def test_the_store_shows_no_stage_as_a_model(own_places: ModelPlaces, model: Path) -> None:
    await made(StageStore(own_places), model, LayerRange(2, 6), is_head=True)
    assert store_models(own_places.store) == []


@pytest.mark.parametrize("identity", ["", "ab", "AB" * 32, "../../../../etc", "ab" * 65, "ab" * 32 + "\n"])
def test_an_identity_that_could_be_a_path_is_refused(own_places: ModelPlaces, identity: str) -> None:
    with pytest.raises(RequestRefused, match="no identity"):
        StageStore(own_places).place(identity, MIDDLE, is_head=False)


async def test_what_is_in_use_is_listed_and_never_pruned(own_places: ModelPlaces, model: Path) -> None:
    store = StageStore(own_places)
    unused = await made(store, model, LayerRange(2, 6), is_head=True)
    one = store.stage(IDENTITY, MIDDLE, is_head=False, parts=parts(model), source=FileRanges([model]))
    two = store.stage(IDENTITY, MIDDLE, is_head=False, parts=parts(model), source=FileRanges([model]))
    async with one:
        async with two as file:
            pass
        found = store.leftovers()
        assert [(each.path, each.kind, each.in_use) for each in found] == [
            (file, "stage", True),
            (unused, "stage", False),
        ]
        assert [each.path for each in store.prune(found)] == [unused]
        assert file.exists() and not unused.exists()
    found = store.leftovers()
    assert [each.in_use for each in found] == [False] and found[0].bytes == file.stat().st_size
    assert [each.path for each in store.prune(found)] == [file]
    assert store.leftovers() == [] and not (store.folder_of("stage", IDENTITY)).exists()
    assert store.prune(found) == []


async def test_another_process_keeps_its_stage_until_it_is_gone(own_places: ModelPlaces, model: Path) -> None:
    store = StageStore(own_places)
    async with asyncio.timeout(30):
        child = await asyncio.create_subprocess_exec(
            sys.executable,
            "-c",
            CHILD,
            str(model),
            str(own_places.store),
            IDENTITY,
            stdout=asyncio.subprocess.PIPE,
        )
        assert child.stdout is not None
        file = Path((await child.stdout.readline()).decode().strip())
        assert [each.in_use for each in store.leftovers()] == [True]
        assert store.prune(store.leftovers()) == []
        os.kill(child.pid, signal.SIGKILL)
        await child.wait()
    assert [each.path for each in store.prune(store.leftovers())] == [file]


async def test_beginnings_are_pruned_when_nobody_goes_on_with_them(
    own_places: ModelPlaces, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(readings, "PIECE_BYTES", 4096)
    store = StageStore(own_places)
    broken = Counting(FileRanges([model]), breaks_at=20)
    with pytest.raises(DownloadFailed):
        async with store.stage(IDENTITY, MIDDLE, is_head=False, parts=parts(model), source=broken):
            pass
    download = own_places.store / "org" / "repo" / "m.gguf.part"
    download.parent.mkdir(parents=True)
    download.write_bytes(b"begun")
    (download.parent / "m.gguf.part.json").write_text("{}")
    (download.parent / "whole.gguf").write_bytes(b"a model")
    found = store.leftovers()
    assert [(each.path.name, each.kind) for each in found] == [
        ("2-4.gguf.part", "part"),
        ("m.gguf.part", "part"),
    ]
    assert store.prune(found) == found
    rest = [path for path in own_places.store.rglob("*") if path.is_file() and path.suffix != ".lock"]
    assert [path.name for path in rest] == ["whole.gguf"]


async def test_what_is_being_made_is_in_use(own_places: ModelPlaces, model: Path) -> None:
    store = StageStore(own_places)

    class Looking(Counting):
        async def read(self, part: int, offset: int, length: int) -> bytes:
            seen.extend(each.in_use for each in store.leftovers())
            assert store.prune(store.leftovers()) == []
            return await super().read(part, offset, length)

    seen: list[bool] = []
    source = Looking(FileRanges([model]))
    async with store.stage(IDENTITY, MIDDLE, is_head=False, parts=parts(model), source=source) as file:
        assert file.exists() and seen and all(seen)
