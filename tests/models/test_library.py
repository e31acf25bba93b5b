import asyncio
import hashlib
import os
import shutil
from pathlib import Path

import pytest

from mesh_llm.core.errors import ModelDamaged, ModelNotFound
from mesh_llm.models.catalogue import load_catalogue
from mesh_llm.models.library import Library
from mesh_llm.models.places import ModelPlaces
from mesh_llm.models.records import Identity, Record, Records
from mesh_llm.models.references import HubFile, HubRepository
from tests.models import model_files
from tests.models.conftest import Journey
from tests.models.model_files import model_bytes, split_model_bytes

SMALL = model_bytes(10_000)


@pytest.fixture
def places(tmp_path: Path) -> ModelPlaces:
    return ModelPlaces(tmp_path / "store", tmp_path / "cache", tmp_path / "catalogue.toml")


@pytest.fixture
def library(places: ModelPlaces) -> Library:
    return Library(places, load_catalogue())


def put(places: ModelPlaces, name: str, data: bytes = SMALL) -> Path:
    path = places.store / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path


def cached(
    places: ModelPlaces, repository: str, path: str, data: bytes = SMALL, commit: str = "a" * 40
) -> Path:
    return model_files.cached(places, repository, path, data, commit)


def names(library: Library) -> list[str]:
    return [model.name for model in library.models()]


def test_an_empty_or_absent_store_has_no_models(library: Library, places: ModelPlaces) -> None:
    assert library.models() == () and library.find("x") is None
    places.store.mkdir()
    assert library.models() == ()


def test_models_are_called_after_their_files_or_as_the_catalogue_calls_them(
    library: Library, places: ModelPlaces
) -> None:
    put(places, "Mine-Q8_0.gguf")
    put(places, "Mistral-Small-3.1-24B-Instruct-2503-Q4_K_M.gguf")
    put(places, "Qwen/Qwen2.5-3B-Instruct-GGUF/qwen2.5-3b-instruct-q4_k_m.gguf")
    assert names(library) == [
        "Mine-Q8_0",
        "Mistral-Small-3.1-24B-Instruct-Q4_K_M",
        "Qwen2.5-3B-Instruct-Q4_K_M",
    ]


@pytest.mark.parametrize(
    "wanted",
    [
        "Qwen2.5-3B-Instruct-Q4_K_M",
        "QWEN2.5-3B-instruct-q4_k_m.gguf",
        "qwen2.5-3b-instruct-q4_k_m",
        "Qwen/Qwen2.5-3B-Instruct-GGUF/qwen2.5-3b-instruct-q4_k_m.gguf",
    ],
)
def test_each_of_its_names_in_any_case_finds_a_model(
    library: Library, places: ModelPlaces, wanted: str
) -> None:
    path = put(places, "Qwen/Qwen2.5-3B-Instruct-GGUF/qwen2.5-3b-instruct-q4_k_m.gguf")
    found = library.find(wanted)
    assert found is not None and found.files == (path,)


def test_what_is_no_whole_model_is_not_listed(library: Library, places: ModelPlaces) -> None:
    for name in (
        "a.gguf.part",
        "a.gguf.part.json",
        "b.txt",
        ".hidden.gguf",
        ".cache/c.gguf",
        "imatrix_d.gguf",
        "mmproj-e-F16.gguf",
        "catalogue.toml",
    ):
        put(places, name)
    (places.store / "folder.gguf").mkdir()
    (places.store / "gone.gguf").symlink_to(places.store / "nowhere")
    assert library.models() == ()


def test_a_model_as_small_as_a_draft_is_listed(library: Library, places: ModelPlaces) -> None:
    put(places, "tiny.gguf", b"GGUF")
    assert [(model.name, model.bytes) for model in library.models()] == [("tiny", 4)]


def test_a_split_file_is_one_model_with_the_size_of_all_parts(library: Library, places: ModelPlaces) -> None:
    paths = [put(places, f"m-Q4_K_M-{n:05d}-of-00003.gguf") for n in (1, 2, 3)]
    (model,) = library.models()
    assert (model.name, model.files, model.bytes, model.missing) == (
        "m-Q4_K_M",
        tuple(paths),
        3 * len(SMALL),
        (),
    )


async def test_a_split_file_without_a_part_is_listed_but_not_found_nor_opened(
    library: Library, places: ModelPlaces
) -> None:
    for number in (1, 3):
        put(places, f"m-{number:05d}-of-00003.gguf")
    (model,) = library.models()
    assert model.missing == ("m-00002-of-00003.gguf",)
    assert library.find("m") is None and library.find_like("m") is None
    with pytest.raises(ModelDamaged, match=r"lacks 1 of its parts.*m-00002-of-00003\.gguf"):
        await library.open(model)


def test_two_models_of_one_name_are_told_apart_by_their_repository(
    library: Library, places: ModelPlaces
) -> None:
    put(places, "one/repo/m.gguf")
    put(places, "two/repo/m.gguf")
    assert names(library) == ["m", "two/repo/m.gguf"]


def test_the_store_is_used_before_the_cache(library: Library, places: ModelPlaces) -> None:
    cached(places, "org/repo", "m.gguf")
    in_cache = library.find("m")
    assert in_cache is not None and in_cache.files[0].is_relative_to(places.hub_cache)
    path = put(places, "m.gguf")
    in_store = library.find("m")
    assert in_store is not None and in_store.files == (path,)


def test_models_of_the_hubs_cache_are_found_by_repository_file_and_name(
    library: Library, places: ModelPlaces
) -> None:
    path = cached(places, "unsloth/Qwen3-8B-GGUF", "Qwen3-8B-Q4_K_M.gguf")
    for found in (
        library.find("qwen3-8b-q4_k_m"),
        library.find_like("qwen3-8b"),
        library.of_hub_file(HubFile("unsloth/qwen3-8b-gguf", "Qwen3-8B-Q4_K_M.gguf")),
        library.of_repository(HubRepository("unsloth/Qwen3-8B-GGUF")),
        library.of_repository(HubRepository("unsloth/Qwen3-8B-GGUF", "q4_k_m")),
        library.of_repository(HubRepository("unsloth/Qwen3-8B-GGUF")),
    ):
        assert found is not None and found.files == (path,)
    assert library.of_repository(HubRepository("unsloth/Qwen3-8B-GGUF", "Q8_0")) is None
    assert library.of_repository(HubRepository("unsloth/Qwen3-8B-GGUF", None, "v2")) is None
    assert library.of_hub_file(HubFile("unsloth/Qwen3-8B-GGUF", "Qwen3-8B-Q4_K_M.gguf", "b" * 40)) is None


def test_of_several_snapshots_the_current_one_counts(library: Library, places: ModelPlaces) -> None:
    cached(places, "org/repo", "m.gguf", model_bytes(10_000, 1), "b" * 40)
    path = cached(places, "org/repo", "m.gguf", model_bytes(10_000, 2), "a" * 40)
    (model,) = library.models()
    assert model.files == (path,)


def test_a_snapshot_that_points_nowhere_is_passed_over(library: Library, places: ModelPlaces) -> None:
    path = cached(places, "org/repo", "m.gguf")
    path.resolve().unlink()
    assert library.models() == ()


def test_another_revision_lies_apart(library: Library, places: ModelPlaces) -> None:
    path = put(places, "org/repo@refs,pr,1/m.gguf")
    found = library.of_hub_file(HubFile("org/repo", "m.gguf", "refs/pr/1"))
    assert found is not None and found.files == (path,)
    assert library.of_hub_file(HubFile("org/repo", "m.gguf")) is None


def test_several_that_fit_are_listed_and_none_is_taken(library: Library, places: ModelPlaces) -> None:
    put(places, "Qwen3-32B-Q4_K_M.gguf")
    put(places, "GLM-4-32B-Q6_K.gguf")
    with pytest.raises(ModelNotFound, match=r"several models: GLM-4-32B-Q6_K, Qwen3-32B-Q4_K_M"):
        library.find_like("32b")


@pytest.mark.parametrize(
    ("projector", "belongs"),
    [
        ("org/repo/mmproj-F16.gguf", True),
        ("org/repo/mmproj-model-f16.gguf", True),
        ("org/repo/mmproj-Vision-8B-F16.gguf", True),
        ("org/repo/mmproj-Other-8B-F16.gguf", False),
        ("other/repo/mmproj-F16.gguf", False),
        ("mmproj-F16.gguf", False),
    ],
)
def test_a_projector_goes_with_the_model_beside_it(
    library: Library, places: ModelPlaces, projector: str, belongs: bool
) -> None:
    put(places, "org/repo/Vision-8B-Q4_K_M.gguf")
    path = put(places, projector)
    (model,) = library.models()
    assert model.projector == (path if belongs else None)


def test_in_a_folder_of_many_models_a_projector_must_carry_the_models_name(
    library: Library, places: ModelPlaces
) -> None:
    put(places, "Vision-8B-Q4_K_M.gguf")
    put(places, "Blind-8B-Q4_K_M.gguf")
    eyes = put(places, "Vision-8B-mmproj-BF16.gguf")
    put(places, "mmproj-F16.gguf")
    assert [(model.name, model.projector) for model in library.models()] == [
        ("Blind-8B-Q4_K_M", None),
        ("Vision-8B-Q4_K_M", eyes),
    ]


def test_of_several_projectors_half_precision_is_taken(library: Library, places: ModelPlaces) -> None:
    put(places, "org/repo/m-Q4_K_M.gguf")
    for precision in ("F32", "BF16", "F16", "Q8_0"):
        put(places, f"org/repo/mmproj-{precision}.gguf")
    (model,) = library.models()
    assert model.projector == places.store / "org/repo/mmproj-F16.gguf"


async def test_a_path_to_any_part_is_the_whole_model(library: Library, tmp_path: Path) -> None:
    for number, data in enumerate(split_model_bytes(2, 10_000), 1):
        (tmp_path / f"m-{number:05d}-of-00002.gguf").write_bytes(data)
    (tmp_path / "other.gguf").write_bytes(SMALL)
    model = await library.open(library.at(tmp_path / "m-00002-of-00002.gguf"))
    assert [file.name for file in model.files] == ["m-00001-of-00002.gguf", "m-00002-of-00002.gguf"]
    assert model.name == "m" and model.facts.architecture == "llama" and model.sha256 == (None, None)


def test_a_path_that_is_absent_or_a_folder_says_so(library: Library, tmp_path: Path) -> None:
    for path in (tmp_path / "none.gguf", tmp_path / "none" / "x.gguf"):
        with pytest.raises(ModelNotFound, match=r"no model at .*check the path"):
            library.at(path)
    (tmp_path / "inside.gguf").write_bytes(SMALL)
    with pytest.raises(ModelNotFound, match=r"is a folder \(inside\)"):
        library.at(tmp_path)


@pytest.mark.parametrize("data", [b"", b"GGUF", b"<html>", SMALL[:5_000], b"\x00" * 1000])
async def test_a_file_that_is_no_whole_gguf_is_refused(
    library: Library, places: ModelPlaces, data: bytes
) -> None:
    put(places, "m.gguf", data)
    found = library.find("m")
    assert found is not None
    with pytest.raises(ModelDamaged, match=r"m\.gguf"):
        await library.open(found)


def remembered(places: ModelPlaces, path: Path) -> None:
    record = Record(hashlib.sha256(path.read_bytes()).hexdigest(), Identity.of(path), "http://origin")
    Records(places.notes, places.store).write(path, record)


async def opened(library: Library, journey: Journey, name: str = "m") -> None:
    found = library.find(name)
    assert found is not None
    await library.open(found, journey.report)


async def test_a_file_that_is_as_it_was_costs_no_reading(
    library: Library, places: ModelPlaces, journey: Journey
) -> None:
    remembered(places, put(places, "m.gguf"))
    await opened(library, journey)
    assert journey.reports == []


async def test_a_flipped_bit_in_a_known_file_is_found_and_named(
    library: Library, places: ModelPlaces, journey: Journey
) -> None:
    path = put(places, "m.gguf")
    remembered(places, path)
    data = bytearray(SMALL)
    data[-100] ^= 1
    path.write_bytes(data)
    good, bad = hashlib.sha256(SMALL).hexdigest(), hashlib.sha256(data).hexdigest()
    with pytest.raises(ModelDamaged) as damage:
        await opened(library, journey)
    for word in (str(path), good, bad, "http://origin", "Delete the file and download the model again"):
        assert word in str(damage.value)
    assert [(each.activity, each.done, each.total) for each in journey.reports] == [
        ("verify", len(data), len(data))
    ]


async def test_a_file_that_was_only_touched_is_read_once_and_remembered(
    library: Library, places: ModelPlaces, journey: Journey
) -> None:
    path = put(places, "m.gguf")
    remembered(places, path)
    os.utime(path, ns=(1, 1))
    await opened(library, journey)
    assert journey.never_went_back()
    journey.reports.clear()
    await opened(library, journey)
    assert journey.reports == []


async def test_a_file_of_the_cache_is_checked_against_its_name_once(
    library: Library, places: ModelPlaces, journey: Journey
) -> None:
    path = cached(places, "org/repo", "m.gguf")
    await opened(library, journey)
    assert journey.never_went_back()
    journey.reports.clear()
    await opened(library, journey)
    assert journey.reports == []
    data = bytearray(SMALL)
    data[-1] ^= 1
    path.resolve().write_bytes(data)
    with pytest.raises(ModelDamaged, match="Hugging Face cache"):
        await opened(library, journey)


async def test_a_damaged_projector_is_damage_too(
    library: Library, places: ModelPlaces, journey: Journey
) -> None:
    put(places, "org/repo/m.gguf")
    eyes = put(places, "org/repo/mmproj-F16.gguf")
    remembered(places, eyes)
    eyes.write_bytes(SMALL[:-1] + b"?")
    with pytest.raises(ModelDamaged, match=r"mmproj-F16\.gguf"):
        await opened(library, journey)


@pytest.mark.parametrize(
    "note", [b"", b"{", b"[]", b'{"sha256": "x"}', b'{"sha256": 1, "bytes": []}', b"\xff"]
)
async def test_a_record_that_makes_no_sense_is_forgotten(
    library: Library, places: ModelPlaces, journey: Journey, note: bytes
) -> None:
    path = put(places, "m.gguf")
    remembered(places, path)
    Records(places.notes, places.store).place(path).write_bytes(note)
    await opened(library, journey)
    assert journey.reports == []


async def test_a_store_that_moved_keeps_what_it_knows(
    library: Library, places: ModelPlaces, journey: Journey, tmp_path: Path
) -> None:
    remembered(places, put(places, "m.gguf"))
    places.store.rename(tmp_path / "elsewhere")
    moved = ModelPlaces(tmp_path / "elsewhere", places.hub_cache, places.own_catalogue)
    await opened(Library(moved, library.catalogue), journey)
    assert journey.reports == []


async def test_a_store_that_cannot_be_written_is_still_used(
    library: Library, places: ModelPlaces, journey: Journey
) -> None:
    cached(places, "org/repo", "m.gguf")
    places.store.write_text("no folder")
    await opened(library, journey)
    await opened(library, journey)
    assert [each.activity for each in journey.reports] == ["verify", "verify"]


@pytest.mark.real
async def test_a_copy_of_the_embedded_model_is_checked_against_the_catalogue(
    library: Library, places: ModelPlaces, journey: Journey, smollm2: Path
) -> None:
    path = places.store / "SmolLM2-135M-Instruct.gguf"
    path.parent.mkdir()
    shutil.copyfile(smollm2, path)
    await opened(library, journey, "smollm2-135m-instruct")
    assert journey.never_went_back()
    with path.open("r+b") as file:
        file.seek(90_000_000)
        file.write(b"\x00\x01\x02\x03")
    with pytest.raises(ModelDamaged, match="b179c9523d0e"):
        await opened(library, journey, "smollm2-135m-instruct")


async def test_cancelling_a_check_ends_it(library: Library, places: ModelPlaces, journey: Journey) -> None:
    path = put(places, "m.gguf", model_bytes(30_000_000))
    remembered(places, path)
    os.utime(path, ns=(1, 1))
    found = library.find("m")
    assert found is not None
    async with asyncio.TaskGroup() as tasks:
        task = tasks.create_task(library.open(found, journey.report))
        await journey.reported.wait()
        task.cancel()
    assert task.cancelled() and journey.reports[-1].done < path.stat().st_size
