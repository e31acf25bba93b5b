"""Predictions against what a real engine allocates and holds."""

import sys
from pathlib import Path

import pytest

from mesh_llm.core.model import ModelFacts
from mesh_llm.models.gguf.facts import read_file_facts
from mesh_llm.planner.fit import BATCH, CHECKPOINTS_PER_SLOT, Fit, batch_for, predict
from tests.planner.engine_child import MIB, started

pytestmark = [
    pytest.mark.real,
    pytest.mark.skipif(sys.platform != "linux", reason="reads /proc"),
]

SLOTS = 4


def planned(facts: ModelFacts, context: int, kv_type: str, *, embeddings: bool = True) -> Fit:
    need = predict(facts, context, kv_type, SLOTS, embeddings=embeddings)
    batch = batch_for(facts, context, BATCH)
    return Fit(context, kv_type, SLOTS, batch, 0, CHECKPOINTS_PER_SLOT, embeddings, need)


@pytest.mark.parametrize(
    ("model", "context", "kv_type", "embeddings"),
    [
        ("smollm2", 4096, "f16", True),
        ("smollm2", 8192, "q4_0", False),
        ("gemma3", 1024, "f16", True),
        ("gemma3", 32768, "q8_0", False),
    ],
)
def test_buffers_are_what_was_predicted(
    model: str, context: int, kv_type: str, embeddings: bool, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    path: Path = request.getfixturevalue(model)
    plan = planned(read_file_facts([path]), context, kv_type, embeddings=embeddings)
    with started(path, plan, tmp_path / "log", embeddings=embeddings) as engine:
        assert abs(engine.allocated("KV") - plan.need.kv_cache) < MIB / 10
        held = engine.allocated("compute") + engine.allocated("output")
        assert held <= plan.need.compute <= 2 * held + 8 * MIB


@pytest.mark.parametrize("model", ["smollm2", "gemma3"])
def test_a_busy_engine_holds_what_was_predicted_and_not_much_less(
    model: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    path: Path = request.getfixturevalue(model)
    plan = planned(read_file_facts([path]), 8192, "f16")
    with started(path, plan, tmp_path / "log") as engine:
        for word in ("red", "green", "blue"):
            engine.post("/v1/completions", {"prompt": f"{word} house " * 300, "max_tokens": 4})
        engine.post("/v1/embeddings", {"input": "one more time " * 120})
        measured = engine.resident()
    assert measured <= plan.need.total <= 1.35 * measured
