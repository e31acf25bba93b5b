"""From what a person types to a model that can be served, with a hub on this machine."""

import hashlib
import logging
import subprocess
import sys
from pathlib import Path

import pytest

from mesh_llm.core.errors import DownloadFailed, ModelDamaged, ModelNotFound, RequestRefused
from mesh_llm.models.library import LocalModel
from mesh_llm.models.obtain import obtain
from mesh_llm.models.places import ModelPlaces
from tests.models.conftest import Journey, places_at
from tests.models.hub_server import HubServer
from tests.models.model_files import cached, model_bytes, split_model_bytes

MODEL = model_bytes(20_000)
QWEN = "unsloth/Qwen3-8B-GGUF/Qwen3-8B-Q4_K_M.gguf"
CODER = "Qwen/Qwen3-Coder-Next-GGUF"


def found_below(folder: Path, pattern: str) -> list[Path]:
    return list(folder.rglob(pattern))


async def get(reference: str, places: ModelPlaces, journey: Journey) -> LocalModel:
    return await obtain(reference, places, journey.report, sleep=journey.sleep)


@pytest.mark.parametrize(
    "reference",
    [
        "Qwen3-8B",
        "qwen3-8b-q4_k_m",
        "Qwen3-8B-Q4_K_M.gguf",
        "unsloth/Qwen3-8B-GGUF",
        "unsloth/Qwen3-8B-GGUF:q4_k_m",
        QWEN,
        f"{QWEN}@main",
        "{hub}/unsloth/Qwen3-8B-GGUF/resolve/main/Qwen3-8B-Q4_K_M.gguf?download=true",
        "https://huggingface.co/unsloth/Qwen3-8B-GGUF/blob/main/Qwen3-8B-Q4_K_M.gguf",
        "hf.co/unsloth/Qwen3-8B-GGUF:Q4_K_M",
    ],
)
async def test_each_way_to_name_a_model_fetches_it_once_and_finds_it_then_without_a_network(
    hub: HubServer, places: ModelPlaces, journey: Journey, reference: str
) -> None:
    hub.files = {QWEN: MODEL, QWEN.replace("Q4_K_M", "Q8_0"): model_bytes(seed=1)}
    reference = reference.format(hub=hub.url)
    model = await get(reference, places, journey)
    assert model.name == "Qwen3-8B-Q4_K_M"
    assert model.files == (places.store / QWEN,)
    assert model.files[0].read_bytes() == MODEL and model.bytes == len(MODEL)
    assert model.sha256 == (hashlib.sha256(MODEL).hexdigest(),)
    assert model.facts.architecture == "llama"
    hub.seen.clear()
    journey.reports.clear()
    for again in (reference, "Qwen3-8B", "QWEN3-8B-Q4_K_M", "unsloth/Qwen3-8B-GGUF", QWEN):
        assert await get(again, places, journey) == model
    assert hub.seen == [] and journey.reports == []


async def test_a_model_whose_file_is_called_otherwise_keeps_the_catalogues_name(
    hub: HubServer, places: ModelPlaces, journey: Journey
) -> None:
    key = "Qwen/Qwen2.5-3B-Instruct-GGUF/qwen2.5-3b-instruct-q4_k_m.gguf"
    hub.files = {key: MODEL}
    model = await get("Qwen2.5-3B", places, journey)
    assert model.name == "Qwen2.5-3B-Instruct-Q4_K_M"
    assert "qwen2.5-3b-instruct-q4_k_m" in model.aliases
    assert {each.subject for each in journey.reports} == {"Qwen2.5-3B-Instruct-Q4_K_M"}


async def test_a_split_model_of_the_catalogue_comes_whole(
    hub: HubServer, places: ModelPlaces, journey: Journey
) -> None:
    folder = f"{CODER}/Qwen3-Coder-Next-Q4_K_M"
    parts = split_model_bytes(4, 10_000)
    hub.files = {
        f"{folder}/Qwen3-Coder-Next-Q4_K_M-{n:05d}-of-00004.gguf": data for n, data in enumerate(parts, 1)
    }
    model = await get("Qwen3-Coder-Next", places, journey)
    assert model.name == "Qwen3-Coder-Next-Q4_K_M"
    assert [file.read_bytes() for file in model.files] == parts
    assert model.bytes == sum(map(len, parts))


async def test_a_model_that_its_publisher_split_anew_is_found_all_the_same(
    hub: HubServer, places: ModelPlaces, journey: Journey
) -> None:
    """The catalogue names files; publishers move them."""
    parts = split_model_bytes(2, 10_000)
    hub.files = {
        f"{CODER}/Q4_K_M/Qwen3-Coder-Next-Q4_K_M-{n:05d}-of-00002.gguf": data
        for n, data in enumerate(parts, 1)
    }
    hub.files[f"{CODER}/next-Q8_0.gguf"] = MODEL
    model = await get("Qwen3-Coder-Next", places, journey)
    assert model.name == "Qwen3-Coder-Next-Q4_K_M"
    hub.seen.clear()
    assert await get("Qwen3-Coder-Next-Q4_K_M", places, journey) == model
    assert hub.seen == []


async def test_a_vision_model_brings_its_eyes(hub: HubServer, places: ModelPlaces, journey: Journey) -> None:
    eyes = model_bytes(8_000, seed=5)
    hub.files = {
        "org/v-GGUF/v-8B-Q4_K_M.gguf": MODEL,
        "org/v-GGUF/mmproj-F32.gguf": MODEL,
        "org/v-GGUF/mmproj-F16.gguf": eyes,
    }
    model = await get("org/v-GGUF", places, journey)
    assert model.projector is not None and model.projector.read_bytes() == eyes
    assert journey.reports[-1].total == len(MODEL) + len(eyes)
    assert not (places.store / "org/v-GGUF/mmproj-F32.gguf").exists()


async def test_the_catalogue_may_say_which_eyes(
    hub: HubServer, places: ModelPlaces, journey: Journey
) -> None:
    repository = "unsloth/Qwen3.5-9B-GGUF"
    hub.files = {
        f"{repository}/Qwen3.5-9B-Q4_K_M.gguf": MODEL,
        f"{repository}/mmproj-BF16.gguf": model_bytes(8_000, seed=5),
        f"{repository}/mmproj-F16.gguf": model_bytes(8_000, seed=6),
    }
    model = await get("Qwen3.5-9B", places, journey)
    assert model.name == "Qwen3.5-9B-Vision-Q4_K_M"
    assert model.projector == places.store / repository / "mmproj-BF16.gguf"


async def test_a_listing_of_many_pages_is_read_to_its_end(
    hub: HubServer, places: ModelPlaces, journey: Journey
) -> None:
    hub.page_size = 2
    hub.files = {f"org/repo/m-{label}.gguf": MODEL for label in ("F16", "Q2_K", "Q3_K_M", "Q4_K_M", "Q8_0")}
    assert (await get("org/repo", places, journey)).name == "m-Q4_K_M"
    assert len(hub.requests("GET", "/api/models/")) == 3


async def test_a_quantisation_that_is_not_there_is_answered_with_those_that_are(
    hub: HubServer, places: ModelPlaces, journey: Journey
) -> None:
    hub.files = {f"org/repo/m-{label}.gguf": MODEL for label in ("Q8_0", "UD-Q4_K_XL", "BF16")}
    with pytest.raises(ModelNotFound, match=r"org/repo has no Q5_K_M; there is: BF16, Q8_0, UD-Q4_K_XL"):
        await get("org/repo:Q5_K_M", places, journey)


async def test_without_the_usual_quantisation_the_nearest_is_taken_and_said(
    hub: HubServer, places: ModelPlaces, journey: Journey, caplog: pytest.LogCaptureFixture
) -> None:
    hub.files = {f"org/repo/m-{label}.gguf": MODEL for label in ("Q8_0", "Q5_K_M", "Q2_K")}
    with caplog.at_level(logging.WARNING):
        assert (await get("org/repo", places, journey)).name == "m-Q5_K_M"
    assert "org/repo has no Q4_K_M: taking Q5_K_M. There is: Q2_K, Q5_K_M, Q8_0." in caplog.text


async def test_a_repository_of_several_models_asks_which(
    hub: HubServer, places: ModelPlaces, journey: Journey
) -> None:
    hub.files = {f"org/repo/{name}-Q4_K_M.gguf": MODEL for name in ("small", "large")}
    with pytest.raises(
        ModelNotFound, match=r"several models: large-Q4_K_M\.gguf, small-Q4_K_M\.gguf\. Name one"
    ):
        await get("org/repo", places, journey)


async def test_a_repository_without_gguf_files_says_so(
    hub: HubServer, places: ModelPlaces, journey: Journey
) -> None:
    hub.files = {"org/repo/model.safetensors": b"", "org/repo/mmproj-F16.gguf": MODEL}
    with pytest.raises(ModelNotFound, match=r"org/repo holds no GGUF model"):
        await get("org/repo", places, journey)


async def test_a_listing_cannot_make_a_file_outside_the_store(
    hub: HubServer, places: ModelPlaces, journey: Journey, tmp_path: Path
) -> None:
    hub.files = {"org/repo/../../../evil-Q4_K_M.gguf": MODEL, "org/repo//abs-Q4_K_M.gguf": MODEL}
    with pytest.raises(ModelNotFound, match="holds no GGUF model"):
        await get("org/repo", places, journey)
    assert found_below(tmp_path, "*evil*") == []


async def test_a_mirror_without_listings_still_gives_files(
    hub: HubServer, places: ModelPlaces, journey: Journey
) -> None:
    hub.files, hub.lists = {QWEN: MODEL}, False
    assert (await get("Qwen3-8B", places, journey)).name == "Qwen3-8B-Q4_K_M"


async def test_a_page_instead_of_a_model_is_refused_after_the_download(
    hub: HubServer, places: ModelPlaces, journey: Journey
) -> None:
    hub.files = {"org/repo/m.gguf": b"<!DOCTYPE html><p>Please log in"}
    with pytest.raises(ModelDamaged, match="web page"):
        await get("org/repo/m.gguf", places, journey)


async def test_a_path_is_used_where_it_lies(places: ModelPlaces, journey: Journey, tmp_path: Path) -> None:
    path = tmp_path / "own.gguf"
    path.write_bytes(MODEL)
    model = await get(str(path), places, journey)
    assert (model.name, model.files) == ("own", (path,))
    assert not places.store.exists()


async def test_a_relative_path_that_looks_like_a_place_on_the_hub_is_used_if_it_exists(
    hub: HubServer, places: ModelPlaces, journey: Journey, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "org/repo/own.gguf"
    path.parent.mkdir(parents=True)
    path.write_bytes(MODEL)
    monkeypatch.chdir(tmp_path)
    for reference in ("org/repo/own.gguf", "./org/repo/own.gguf"):
        assert (await get(reference, places, journey)).name == "own"
    monkeypatch.chdir(path.parent)
    assert (await get("own.gguf", places, journey)).name == "own"
    assert hub.seen == []


async def test_a_path_that_is_not_there_is_not_looked_for_elsewhere(
    hub: HubServer, places: ModelPlaces, journey: Journey
) -> None:
    for reference in ("./none.gguf", "/none/none.gguf", "folder/none.gguf"):
        with pytest.raises(ModelNotFound, match="no model at"):
            await get(reference, places, journey)
    assert hub.seen == []


async def test_a_model_in_the_hubs_cache_is_used_from_there(
    hub: HubServer, places: ModelPlaces, journey: Journey
) -> None:
    link = cached(places, "unsloth/Qwen3-8B-GGUF", "Qwen3-8B-Q4_K_M.gguf", MODEL)
    for reference in ("Qwen3-8B", "unsloth/Qwen3-8B-GGUF:Q4_K_M", QWEN):
        assert (await get(reference, places, journey)).files == (link,)
    assert hub.seen == []


async def test_a_model_put_into_the_store_by_hand_is_found_by_words_of_its_name(
    hub: HubServer, places: ModelPlaces, journey: Journey
) -> None:
    places.store.mkdir()
    (places.store / "My-Own-7B-Q6_K.gguf").write_bytes(MODEL)
    assert (await get("my-own", places, journey)).name == "My-Own-7B-Q6_K"
    with pytest.raises(ModelNotFound, match="Nearest: My-Own-7B-Q6_K"):
        await get("My-Own-8B", places, journey)
    assert hub.seen == []


async def test_a_missing_part_of_a_split_model_is_fetched_again(
    hub: HubServer, places: ModelPlaces, journey: Journey
) -> None:
    parts = split_model_bytes(3, 10_000)
    hub.files = {f"org/repo/m-Q4_K_M-{n:05d}-of-00003.gguf": data for n, data in enumerate(parts, 1)}
    model = await get("org/repo", places, journey)
    model.files[1].unlink()
    hub.seen.clear()
    assert await get("org/repo", places, journey) == model
    assert [each.path.rpartition("/")[2] for each in hub.requests()] == [model.files[1].name]


@pytest.mark.parametrize("reference", ["32b", "qwen3"])
async def test_an_ambiguous_name_lists_the_candidates(
    hub: HubServer, places: ModelPlaces, journey: Journey, reference: str
) -> None:
    with pytest.raises(ModelNotFound, match=r"fits several models: .*Qwen3-32B-Q4_K_M"):
        await get(reference, places, journey)
    assert hub.seen == []


async def test_offline_nothing_is_asked_of_a_network(
    hub: HubServer, tmp_path: Path, journey: Journey
) -> None:
    places = ModelPlaces(tmp_path / "store", tmp_path / "cache", tmp_path / "own", hub.url, offline=True)
    with pytest.raises(DownloadFailed, match="HF_HUB_OFFLINE"):
        await get("Qwen3-8B", places, journey)
    assert hub.seen == []


async def test_a_catalogue_in_the_home_names_models_too(
    hub: HubServer, places: ModelPlaces, journey: Journey
) -> None:
    places.own_catalogue.write_text(
        '[[model]]\nname = "Ours"\nrepository = "me/mine"\nfile = "x/y-Q8_0.gguf"\n'
        'revision = "v2"\nsize_gb = 1'
    )
    hub.files = {"me/mine/x/y-Q8_0.gguf": MODEL}
    model = await get("ours", places, journey)
    assert model.name == "Ours" and model.files == (places.store / "me/mine@v2/x/y-Q8_0.gguf",)
    assert hub.requests("HEAD", "/resolve/v2/")


async def test_a_reference_that_is_none_is_refused(places: ModelPlaces, journey: Journey) -> None:
    with pytest.raises(RequestRefused, match="names no repository"):
        await get("org/../../etc/passwd.gguf", places, journey)


def test_a_start_from_disk_loads_no_http_library(tmp_path: Path) -> None:
    (tmp_path / "m.gguf").write_bytes(MODEL)
    script = f"""
import asyncio, sys
from pathlib import Path
from mesh_llm.models.obtain import obtain
from mesh_llm.models.places import ModelPlaces
folder = Path({str(tmp_path)!r})
print(asyncio.run(obtain("m", ModelPlaces(folder, folder / "cache", folder / "own"))).name)
print([name for name in ("aiohttp", "filelock", "ssl", "zipfile", "difflib") if name in sys.modules])
"""
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout.splitlines()[0] == "m"
    assert "aiohttp" not in done.stdout and "filelock" not in done.stdout


async def test_a_token_from_the_hubs_own_login_is_used(
    hub: HubServer, tmp_path: Path, journey: Journey
) -> None:
    (tmp_path / "token").write_text("hf_from_file\n")
    places = places_at(tmp_path, hub.url)
    places = ModelPlaces(
        places.store, places.hub_cache, places.own_catalogue, hub.url, token_file=tmp_path / "token"
    )
    hub.files = {QWEN: MODEL}
    await get("Qwen3-8B", places, journey)
    assert hub.requests("HEAD", "/resolve/")[0].headers["authorization"] == "Bearer hf_from_file"
