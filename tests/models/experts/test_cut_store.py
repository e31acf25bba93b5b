"""Cuts that are kept: made once, of one ranking only, resumed, never pruned while in use."""

import asyncio
import json
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from mesh_llm.core.errors import DownloadFailed, RequestRefused
from mesh_llm.core.experts import ExpertRanking, Kept, best
from mesh_llm.models.experts.cut_store import CutStore
from mesh_llm.models.experts.layout import cut_layout
from mesh_llm.models.gguf.header import read_file_header
from mesh_llm.models.places import ModelPlaces
from mesh_llm.models.shelf import store_models
from mesh_llm.models.stages import readings
from mesh_llm.models.stages.made_files import MadeFiles
from mesh_llm.models.stages.ranges import FileRanges, RangeSource
from tests.experts.tiny_moe import TINY_MIXTURES, write_tiny_mixture
from tests.models.conftest import places_at
from tests.models.experts.cuts import IDENTITY, cut_file, drawn_kept, drawn_ranking, headers, shape_of
from tests.models.stages.test_writing import Counting

CHILD = """
import asyncio, os, signal, sys
from pathlib import Path
from mesh_llm.models.experts.cut_store import CutStore
from mesh_llm.models.places import ModelPlaces
from mesh_llm.models.stages import readings, writing
from mesh_llm.models.stages.ranges import FileRanges
from tests.models.experts.cuts import drawn_kept, headers

readings.PIECE_BYTES = writing.MARK_BYTES = 4096

async def main():
    model, folder, dies = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[5] == "dies"
    places = ModelPlaces(store=folder, hub_cache=folder / "cache", own_catalogue=folder / "c.toml")
    parts = headers([model])

    def report(progress):
        if dies and progress.done > progress.total / 2:
            os.kill(os.getpid(), signal.SIGKILL)

    held = CutStore(places).cut(
        sys.argv[3], sys.argv[4], drawn_kept(parts, 6), parts, FileRanges([model]), report
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
    return write_tiny_mixture(tmp_path / "m.gguf", "deepseek2")[0]


async def made(
    store: CutStore, model: Path, ranking: ExpertRanking, kept: Kept, source: RangeSource | None = None
) -> Path:
    held = store.cut(IDENTITY, ranking.digest, kept, headers([model]), source or FileRanges([model]))
    async with asyncio.timeout(20), held as file:
        return file


def ranked(model: Path, count: int = 6, seed: int = 0) -> tuple[ExpertRanking, Kept]:
    shape = shape_of(headers([model]))
    ranking = drawn_ranking(shape, seed)
    return ranking, best(ranking, count, shape)


async def test_a_cut_is_made_once(own_places: ModelPlaces, model: Path, tmp_path: Path) -> None:
    store, source = CutStore(own_places), Counting(FileRanges([model]))
    ranking, kept = ranked(model)
    file = await made(store, model, ranking, kept, source)
    asked = list(source.asked)
    assert await made(store, model, ranking, kept, source) == file
    assert asked and source.asked == asked
    told = read_file_header(file)
    assert told.tensors == read_file_header(cut_file([model], kept, tmp_path / "c.gguf")).tensors
    assert told.metadata["mesh_llm.cut.model"] == IDENTITY
    assert told.metadata["mesh_llm.cut.ranking"] == ranking.digest
    assert told.metadata["mesh_llm.cut.kept"] == 6
    assert told.metadata["mesh_llm.cut.experts"] == 8
    assert told.metadata["mesh_llm.cut.choice"] == kept.digest


async def test_rankings_choices_and_models_have_cuts_of_their_own(
    own_places: ModelPlaces, model: Path
) -> None:
    store = CutStore(own_places)
    one, other = ranked(model), ranked(model, seed=1)
    places = {store.place(IDENTITY, ranking.digest, one[1]) for ranking in (one[0], other[0])}
    places |= {store.place(IDENTITY, one[0].digest, kept) for kept in (other[1], ranked(model, 5)[1])}
    assert len({*places, store.place("ab" * 32, one[0].digest, one[1])}) == 5


async def test_a_cut_of_anything_else_is_never_taken_whatever_its_name(
    own_places: ModelPlaces, model: Path, caplog: pytest.LogCaptureFixture
) -> None:
    store = CutStore(own_places)
    ranking, kept = ranked(model)
    others = [
        await made(store, model, *ranked(model, seed=1)),
        await made(store, model, ranked(model, seed=1)[0], kept),  # the same experts, chosen otherwise
        await made(store, model, ranking, ranked(model, seed=1)[1]),
    ]
    async with store.cut(
        "ab" * 32, ranking.digest, kept, headers([model]), FileRanges([model])
    ) as of_another_model:
        others.append(of_another_model)
    file = await made(store, model, ranking, kept)
    right = file.read_bytes()
    assert {other.stat().st_size for other in others} == {len(right)}
    why_other = "another one, of another model or choice of experts"
    for wrong, why in (
        *((other.read_bytes(), why_other) for other in others),
        (right[:-1], f"it has {len(right) - 1:,} bytes of {len(right):,}"),
        (right + b"x", f"it has {len(right) + 1:,} bytes of {len(right):,}"),
        (b"", "it has 0 bytes"),
    ):
        caplog.clear()
        file.write_bytes(wrong)
        assert (await made(store, model, ranking, kept)).read_bytes() == right
        assert f"{file.name} on this disk is made anew: " in caplog.text and why in caplog.text


@pytest.mark.parametrize("place", [0.02, 0.3, 0.7, 1.0])
async def test_a_cut_of_which_one_byte_was_altered_is_made_anew_and_people_are_told(
    own_places: ModelPlaces, model: Path, caplog: pytest.LogCaptureFixture, place: float
) -> None:
    store = CutStore(own_places)
    ranking, kept = ranked(model)
    file = await made(store, model, ranking, kept)
    right = file.read_bytes()
    wrong = bytearray(right)
    wrong[int(place * (len(wrong) - 1))] ^= 1
    file.write_bytes(wrong)
    assert (await made(store, model, ranking, kept)).read_bytes() == right
    assert "is made anew: " in caplog.text


async def test_a_cut_of_another_version_or_of_a_model_changed_under_its_name_is_made_anew(
    own_places: ModelPlaces, model: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Of the same header and size: what tells them apart is where in the model each byte came from."""
    store = CutStore(own_places)
    ranking, kept = ranked(model)
    file = await made(store, model, ranking, kept)
    seal = file.with_name(f"{file.name}.json")
    seal.write_text(json.dumps(json.loads(seal.read_text()) | {"layout": "of another version"}))
    right, inode = file.read_bytes(), file.stat().st_ino
    assert (await made(store, model, ranking, kept)).read_bytes() == right
    assert file.stat().st_ino != inode and "by a version that made it otherwise" in caplog.text


@pytest.mark.parametrize("seal", [None, b"", b"{", b"[]", b"[" * 70_000])
async def test_a_cut_that_lost_its_seal_is_taken_once_and_sealed_again(
    own_places: ModelPlaces, model: Path, seal: bytes | None
) -> None:
    store, (ranking, kept) = CutStore(own_places), ranked(model)
    file = await made(store, model, ranking, kept)
    right, place = file.read_bytes(), file.with_name(f"{file.name}.json")
    place.unlink() if seal is None else place.write_bytes(seal)
    source = Counting(FileRanges([model]))
    assert await made(store, model, ranking, kept, source) == file and not source.asked
    file.write_bytes(right[:-1] + bytes([right[-1] ^ 1]))
    assert (await made(store, model, ranking, kept)).read_bytes() == right


async def test_a_cut_that_was_moved_and_not_altered_is_taken_as_it_is(
    own_places: ModelPlaces, model: Path
) -> None:
    store, (ranking, kept) = CutStore(own_places), ranked(model)
    file = await made(store, model, ranking, kept)
    file.write_bytes(file.read_bytes())
    source = Counting(FileRanges([model]))
    assert await made(store, model, ranking, kept, source) == file and not source.asked


@pytest.mark.parametrize("tensors_per_file", [0, 6])
@pytest.mark.parametrize("name", TINY_MIXTURES)
async def test_little_is_fetched_that_is_not_kept(
    own_places: ModelPlaces, tmp_path: Path, name: str, tensors_per_file: int
) -> None:
    files = write_tiny_mixture(tmp_path / "m.gguf", name, tensors_per_file=tensors_per_file)
    parts = headers(files)
    kept = drawn_kept(parts, shape_of(parts).experts // 2)
    source = Counting(FileRanges(files))
    held = CutStore(own_places).cut(IDENTITY, "ef" * 16, kept, parts, source)
    async with asyncio.timeout(20), held as file:
        layout = cut_layout(parts, kept)
        keys = sum(copy.length for copy in layout.copies) - layout.assigned_bytes
        fetched = sum(length for _, _, length in source.asked) - keys
        assert fetched / layout.assigned_bytes <= 1.05
        expected = cut_file(files, kept, tmp_path / "expected.gguf")
        assert weights_of(file) == weights_of(expected)


def weights_of(file: Path) -> bytes:
    return file.read_bytes()[read_file_header(file).data_offset :]


async def test_a_cut_that_broke_off_is_gone_on_with(
    own_places: ModelPlaces, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(readings, "PIECE_BYTES", 4096)
    store, (ranking, kept) = CutStore(own_places), ranked(model)
    broken = Counting(FileRanges([model]), breaks_at=40)
    with pytest.raises(DownloadFailed):
        await made(store, model, ranking, kept, broken)
    rest = Counting(FileRanges([model]))
    file = await made(store, model, ranking, kept, rest)
    assert len(set(broken.asked) & set(rest.asked)) <= 4
    content = file.read_bytes()
    file.unlink()
    assert (await made(store, model, ranking, kept)).read_bytes() == content


async def test_what_broke_off_is_not_gone_on_with_for_another_ranking(
    own_places: ModelPlaces, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(readings, "PIECE_BYTES", 4096)
    store, (ranking, kept) = CutStore(own_places), ranked(model)
    other = await made(store, model, *ranked(model, seed=1))
    with pytest.raises(DownloadFailed):
        await made(store, model, ranking, kept, Counting(FileRanges([model]), breaks_at=40))
    (begun,) = other.parent.glob("*.part")
    for file in (begun, begun.with_name(begun.name + ".json")):
        file.rename(str(file).replace(begun.name, other.name + ".part"))
    right = other.read_bytes()
    other.unlink()
    assert (await made(store, model, *ranked(model, seed=1))).read_bytes() == right


async def test_a_killed_maker_leaves_what_the_next_goes_on_with(own_places: ModelPlaces, model: Path) -> None:
    store, (ranking, kept) = CutStore(own_places), ranked(model)
    child = await child_of(model, own_places, ranking, "dies")
    async with asyncio.timeout(30):
        assert await child.wait() == -signal.SIGKILL
    assert [each.kind for each in store.leftovers()] == ["part"]
    rest = Counting(FileRanges([model]))
    file = await made(store, model, ranking, kept, rest)
    assert sum(length for _, _, length in rest.asked) < 0.75 * file.stat().st_size
    content = file.read_bytes()
    file.unlink()
    assert (await made(store, model, ranking, kept)).read_bytes() == content


async def test_a_cut_in_use_is_listed_and_never_pruned(own_places: ModelPlaces, model: Path) -> None:
    store, (ranking, kept) = MadeFiles(own_places), ranked(model)
    unused = await made(CutStore(own_places), model, *ranked(model, 5))
    child = await child_of(model, own_places, ranking, "lives")
    async with asyncio.timeout(30):
        assert child.stdout is not None
        file = Path((await child.stdout.readline()).decode().strip())
        assert file == CutStore(own_places).place(IDENTITY, ranking.digest, kept)
        found = {each.path: (each.kind, each.in_use) for each in store.leftovers()}
        assert found == {file: ("cut", True), unused: ("cut", False)}
        assert [each.path for each in store.prune(store.leftovers())] == [unused]
        os.kill(child.pid, signal.SIGKILL)
        await child.wait()
    assert store_models(own_places.store) == []
    assert [each.path for each in store.prune(store.leftovers())] == [file]
    assert not file.parent.exists()


async def child_of(
    model: Path, places: ModelPlaces, ranking: ExpertRanking, what: str
) -> asyncio.subprocess.Process:
    arguments: Sequence[str] = (str(model), str(places.store), IDENTITY, ranking.digest, what)
    return await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        CHILD,
        *arguments,
        stdout=asyncio.subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": os.getcwd()},
    )


@pytest.mark.parametrize(("identity", "digest"), [("../../etc", "ef" * 16), ("ab" * 32, "../x"), ("ab", "")])
def test_a_name_that_could_be_a_path_is_refused(own_places: ModelPlaces, identity: str, digest: str) -> None:
    with pytest.raises(RequestRefused, match=r"no (identity|digest)"):
        CutStore(own_places).place(identity, digest, Kept({0: (0, 1)}))


async def test_one_at_a_time_measures_a_model_on_one_disk(own_places: ModelPlaces):
    """Two nodes, each with a store of its own over the same folder."""
    one, other = (CutStore(own_places) for _ in range(2))
    waiting, inside = asyncio.Event(), asyncio.Event()

    async def measure() -> None:
        async with other.measuring(IDENTITY, waiting.set):
            inside.set()

    async with asyncio.timeout(10), asyncio.TaskGroup() as tasks:
        async with one.measuring(IDENTITY, lambda: None):
            tasks.create_task(measure())
            await waiting.wait()
            assert not inside.is_set()
        await inside.wait()
