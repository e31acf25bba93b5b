from mesh_llm.console.snapshot import DiskModel, ModelStatus, Snapshot, as_json
from mesh_llm.core.machine import Device, Machine
from mesh_llm.core.serving import Endpoint, Failed, Loading, Ready, Restarting
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
