"""The commands beside serving, as processes."""

import fcntl
import json
from pathlib import Path

import pytest

from tests.interaction.nodes import ended

pytestmark = pytest.mark.real


async def test_models_tells_what_is_on_disk_and_whether_it_fits(store: Path, tmp_path: Path):
    status, out, _ = await ended(store, tmp_path, "models", "--json")
    models = {model["name"]: model for model in json.loads(out)}
    assert status == 0 and {"SmolLM2-135M-Instruct", "Gemma-3-270M"} <= models.keys()
    small = models["SmolLM2-135M-Instruct"]
    assert small["bytes"] == 98_362_432 and small["quantisation"] == "Q4_1" and small["fits"]
    assert small["memory_bytes_needed"] > small["bytes"]
    status, out, _ = await ended(store, tmp_path, "models")
    assert status == 0 and "SmolLM2-135M-Instruct" in out and "yes" in out


async def test_models_names_a_broken_file_and_goes_on(tmp_path: Path):
    (tmp_path / "broken.gguf").write_text("no model")
    status, out, _ = await ended(tmp_path, tmp_path / "home", "models", "--json")
    (model,) = json.loads(out)
    assert status == 0 and not model["fits"] and "GGUF" in model["problem"]
    status, out, _ = await ended(tmp_path, tmp_path / "home", "models")
    assert status == 0 and "broken" in out


async def test_an_empty_store_says_how_to_fill_it(tmp_path: Path):
    status, out, _ = await ended(tmp_path / "store", tmp_path, "models")
    assert status == 0 and "mesh-llm download" in out


async def test_prune_lists_what_can_be_made_again_and_deletes_it_when_told(tmp_path: Path):
    part = tmp_path / "store" / "org" / "repo" / "m.gguf.part"
    stage = tmp_path / "store" / ".mesh-llm" / "stages" / "abababab" / "0-4.gguf"
    model = tmp_path / "store" / "mine.gguf"
    for path in (part, stage, model):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(bytes(5000))
    status, out, _ = await ended(tmp_path / "store", tmp_path, "models", "prune")
    assert status == 0 and "10.0 kB" in out and "--yes" in out and "mine" not in out
    status, out, _ = await ended(tmp_path / "store", tmp_path, "models", "prune", "--json")
    found = {entry["path"]: entry for entry in json.loads(out)}
    assert found.keys() == {str(part), str(stage)}
    assert found[str(stage)] == {
        "path": str(stage),
        "kind": "stage",
        "bytes": 5000,
        "in_use": False,
        "deleted": False,
    }
    with stage.open("rb") as file:
        fcntl.flock(file, fcntl.LOCK_SH)
        status, out, _ = await ended(tmp_path / "store", tmp_path, "models", "prune", "--yes")
    assert status == 0 and "in use, stays" in out and "5.0 kB deleted" in out
    assert stage.exists() and model.exists() and not part.exists()
    status, out, _ = await ended(tmp_path / "store", tmp_path, "models", "--json", "prune", "--yes")
    assert status == 0 and [entry["deleted"] for entry in json.loads(out)] == [True]
    status, out, _ = await ended(tmp_path / "store", tmp_path, "models", "prune")
    assert status == 0 and "Nothing to prune" in out and model.exists()


async def test_download_without_a_name_lists_the_catalogue(store: Path, tmp_path: Path):
    status, out, _ = await ended(store, tmp_path, "download", "--json")
    entries = {entry["name"]: entry for entry in json.loads(out)}
    assert status == 0 and len(entries) >= 41
    assert entries["SmolLM2-135M-Instruct"]["on_disk"] and not entries["Qwen3-32B-Q4_K_M"]["on_disk"]
    assert entries["Qwen3-32B-Q4_K_M"]["draft"] == "Qwen3-0.6B-Q4_K_M"
    status, out, _ = await ended(store, tmp_path, "download")
    assert status == 0 and "Qwen3-32B-Q4_K_M" in out


async def test_a_vague_name_lists_the_candidates(store: Path, tmp_path: Path):
    status, _, err = await ended(store, tmp_path, "download", "32b")
    assert status == 3 and "Qwen3-32B-Q4_K_M" in err and "GLM-4-32B-0414-Q4_K_M" in err


async def test_downloading_what_is_here_fetches_nothing(store: Path, tmp_path: Path):
    status, out, _ = await ended(store, tmp_path, "download", "smollm2-135m-instruct", "--json")
    (model,) = json.loads(out)
    assert status == 0 and Path(model["files"][0]).parent == store


async def test_a_hub_that_cannot_be_reached_is_told(store: Path, tmp_path: Path):
    nowhere = {"HF_ENDPOINT": "http://127.0.0.1:1", "HF_HUB_OFFLINE": "1"}
    status, _, err = await ended(store, tmp_path, "download", "unsloth/none-GGUF:Q4_K_M", **nowhere)
    assert status == 6 and "HF_HUB_OFFLINE" in err


async def test_errors_are_json_where_logs_are(store: Path, tmp_path: Path):
    status, _, err = await ended(store, tmp_path, "--log-format", "json", "download", "32b")
    assert status == 3 and json.loads(err)["event"] == "ModelNotFound"


async def test_gpus_tells_what_models_may_use(store: Path, tmp_path: Path):
    status, out, _ = await ended(store, tmp_path, "gpus", "--json")
    machine = json.loads(out)
    assert status == 0 and machine["cores"] >= 1
    assert 0 < machine["memory_bytes_for_models"] <= machine["memory_bytes"]
    status, out, _ = await ended(store, tmp_path, "gpus")
    assert status == 0 and "models may use" in out
