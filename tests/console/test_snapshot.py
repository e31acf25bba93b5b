from dataclasses import replace
from typing import Any

from mesh_llm.console.snapshot import DiskModel, MeshStatus, ModelStatus, Snapshot, as_json
from mesh_llm.core.ids import MeshId, NodeId
from mesh_llm.core.machine import Device, Machine
from mesh_llm.core.serving import Endpoint, Failed, Loading, Ready, Restarting, Stopped, Waiting
from tests.console.peer_for_tests import PEER
from tests.engine.served_model_for_tests import served

READY = Ready(Endpoint("http://127.0.0.1:1", "secret"))
CARD = Device("CUDA0", "H200", 140_000_000_000, 139_000_000_000)
MACHINE = Machine(8, 16_000_000_000, 9_000_000_000, (CARD,))


def snapshot(*models: ModelStatus, on_disk: tuple[DiskModel, ...] = (), port: int | None = 9337) -> Snapshot:
    return Snapshot("1.2.3", port, MACHINE, 12_000_000_000, models, on_disk, 1, 2)


def test_every_field_that_was_promised_is_there():
    promised = {
        "version", "node_id", "token", "node_status", "is_host", "is_client", "llama_ready", "model_name",
        "serving_models", "api_port", "my_vram_gb", "model_size_gb", "peers", "mesh_models",
        "inflight_requests", "nostr_discovery",
    }  # fmt: skip
    assert promised <= as_json(snapshot()).keys()


def test_a_node_without_models_is_idle():
    status = as_json(snapshot(port=None))
    assert (status["node_status"], status["model_name"], status["api_port"]) == ("Idle", "(idle)", None)


def test_one_ready_model_makes_the_node_serve():
    status = as_json(
        snapshot(ModelStatus(served(), READY), ModelStatus(served(name="other"), Failed("broken")))
    )
    assert status["node_status"] == "Serving" and status["is_host"] and status["llama_ready"]
    assert status["serving_models"] == ["SmolLM2-135M-Instruct"]
    assert [model["condition"] for model in status["models"]] == ["ready", "failed"]
    assert status["models"][1]["reason"] == "broken"
    assert status["inflight_requests"] == 1 and status["waiting_requests"] == 2


def test_loading_and_restarting_are_told_with_how_far_and_why():
    status = as_json(
        snapshot(
            ModelStatus(served(), Loading(0.25)), ModelStatus(served(name="b"), Restarting("killed", 2, 4))
        )
    )
    assert status["node_status"] == "Loading" and not status["is_host"]
    assert status["models"][0]["loaded"] == 0.25
    assert status["models"][1] | {"reason": "killed", "attempt": 2, "retry_after_s": 4} == status["models"][1]


def test_a_model_that_waits_for_more_memory_says_so():
    status = as_json(snapshot(ModelStatus(served(), Waiting("2.0 GB are missing"))))
    assert status["node_status"] == "Loading" and not status["is_host"]
    assert (status["models"][0]["condition"], status["models"][0]["reason"]) == (
        "waiting",
        "2.0 GB are missing",
    )


def test_a_node_whose_models_all_failed_says_so():
    assert as_json(snapshot(ModelStatus(served(), Failed("no"))))["node_status"] == "Failed"


def test_models_on_disk_are_cold_until_they_answer():
    small = DiskModel("SmolLM2-135M-Instruct", 98, vision=False)
    disk = (small, DiskModel("Other", 5_000_000_000, vision=True))
    status = as_json(snapshot(ModelStatus(served(), READY), on_disk=disk))
    assert [(m["name"], m["status"], m["node_count"]) for m in status["mesh_models"]] == [
        ("Other", "cold", 0),
        ("SmolLM2-135M-Instruct", "warm", 1),
    ]
    assert status["mesh_models"][0]["vision"] and status["mesh_models"][0]["size_gb"] == 5.0


def test_the_engine_s_key_is_nobody_s_business():
    assert "secret" not in str(as_json(snapshot(ModelStatus(served(), READY))))


MESH = MeshStatus(NodeId("a" * 64), "desk", MeshId("c" * 32), is_client=False, token="mesh1x", peers=(PEER,))


def in_mesh(mesh: MeshStatus, *models: ModelStatus) -> dict[str, Any]:
    return as_json(replace(snapshot(*models), mesh=mesh))


def test_a_node_says_who_it_is_and_keeps_its_invite_to_itself():
    status = in_mesh(MESH)
    assert (status["node_id"], status["node_name"], status["mesh_id"]) == ("a" * 64, "desk", "c" * 32)
    assert status["token"] is None
    assert as_json(replace(snapshot(), mesh=MESH), with_token=True)["token"] == "mesh1x"


def test_a_node_without_a_mesh_has_the_same_fields():
    assert as_json(snapshot()).keys() == in_mesh(MESH).keys()
    assert as_json(snapshot())["peers"] == []


def test_peers_are_told_as_they_were_promised():
    (peer,) = in_mesh(MESH)["peers"]
    assert peer == {
        "id": "b" * 64,
        "name": "studio",
        "role": "Host",
        "health": "alive",
        "version": "1.2.3",
        "models": ["Qwen3-8B", "Seer"],
        "serving": "Qwen3-8B",
        "serving_models": ["Qwen3-8B"],
        "tokens_per_second": {"Qwen3-8B": 41.3},
        "vram_gb": 24.0,
        "inflight_requests": 3,
        "rtt_ms": 12.3,
        "path": "direct",
    }


def test_a_peer_that_serves_nothing_yet_is_a_worker_and_one_that_never_will_a_client():
    idle = replace(PEER, served=(), round_trip_s=None, path=None)
    client = replace(idle, is_client=True)
    told = in_mesh(replace(MESH, peers=(idle, client)))["peers"]
    assert [peer["role"] for peer in told] == ["Worker", "Client"]
    assert told[0]["serving"] is None and told[0]["rtt_ms"] is None


def test_models_are_counted_over_all_nodes_and_each_node_once():
    own = ModelStatus(served(name="Qwen3-8B"), READY)
    same_on_an_endpoint = ModelStatus(served(name="Qwen3-8B"), READY)
    other = replace(PEER, id=NodeId("d" * 64))
    models = in_mesh(replace(MESH, peers=(PEER, other)), own, same_on_an_endpoint)["mesh_models"]
    assert [(m["name"], m["status"], m["node_count"]) for m in models] == [
        ("Qwen3-8B", "warm", 3),
        ("Seer", "cold", 0),
    ]
    assert models[0]["size_gb"] == 5.0 and models[1]["vision"]


def test_a_client_says_so():
    status = in_mesh(replace(MESH, is_client=True))
    assert (status["is_client"], status["node_status"], status["model_name"]) == (True, "Client", "(client)")


def test_a_node_whose_models_were_all_dropped_is_idle():
    assert as_json(snapshot(ModelStatus(served(), Stopped())))["node_status"] == "Idle"


def test_a_model_tells_how_busy_and_how_fast_it_is():
    (model,) = as_json(snapshot(ModelStatus(served(), READY, busy=2, tokens_per_second=33.333)))["models"]
    assert (model["inflight_requests"], model["tokens_per_second"]) == (2, 33.3)
