"""Predictions for the children of a split model against what real ones hold."""

import math
import re
import sys
from itertools import pairwise
from pathlib import Path

import gguf
import pytest

from mesh_llm.core.stages import Cuttable, LayerRange
from mesh_llm.models.gguf.facts import read_file_facts
from mesh_llm.planner.stage_fit import predict_stage
from tests.engine.head.heads import client, split_model, together

pytestmark = [
    pytest.mark.real,
    pytest.mark.skipif(sys.platform != "linux", reason="reads /proc"),
]

MAPPING = re.compile(r"^[0-9a-f]+-[0-9a-f]+ \S+ \S+ \S+ \S+\s*(.*)$")
CONTEXT, SEQUENCES, BATCH = 2048, 4, 256


def cuttable_of(path: Path) -> Cuttable:
    """As the gguf package sees it."""
    facts, reader = read_file_facts([path]), gguf.GGUFReader(path)
    layers, others = [0] * facts.layers, 0
    for tensor in reader.tensors:
        block = re.match(r"blk\.(\d+)\.", tensor.name)
        if block:
            layers[int(block[1])] += int(tensor.n_bytes)
        else:
            others += int(tensor.n_bytes)
    merges = reader.fields.get("tokenizer.ggml.merges")
    assert not [tensor for tensor in reader.tensors if tensor.name == "output.weight"], "it is not tied"
    return Cuttable(facts, tuple(layers), others, 0, (), merges=len(merges.data) if merges else 0)


def forget_what_was_read(pid: int) -> None:
    Path(f"/proc/{pid}/clear_refs").write_text("1", encoding="ascii")


def resident(pid: int) -> int:
    """RSS, but of model files only what was read since `forget_what_was_read`: mapped pages of weights that
    the CPU backend has stored a second time are clean and not read again."""
    count, wanted = 0, "Rss"
    for line in Path(f"/proc/{pid}/smaps").read_text(encoding="utf-8").splitlines():
        mapping = MAPPING.match(line)
        if mapping is not None:
            wanted = "Referenced" if mapping[1].endswith(".gguf") else "Rss"
        elif line.startswith(f"{wanted}:"):
            count += int(line.split()[1]) * 1024
    return count


@pytest.mark.parametrize(
    ("model", "cuts", "scale"),
    [("smollm2", (15,), 1.0), ("smollm2", (10, 20), 1.0), ("gemma3", (6, 12), math.sqrt(640))],
)
async def test_busy_children_hold_what_was_predicted_within_five_percent(
    model: str, cuts: tuple[int, ...], scale: float, smollm2: Path, gemma3: Path, tmp_path: Path
) -> None:
    path = {"smollm2": smollm2, "gemma3": gemma3}[model]
    whole = cuttable_of(path)
    async with split_model(path, cuts, tmp_path, scale) as split, split.ring():
        await split.wait_for_states(1)
        pids = [*(worker.pid for worker in split.workers), split.head.pid]
        async with client(split.endpoint) as ours:
            for word in ("red", "blue"):
                for pid in pids:
                    forget_what_was_read(pid)
                prompts = [f"{word} {number} house " * 60 for number in range(4)]
                await together(*(ours.complete(prompt, max_tokens=3) for prompt in prompts))
        measured = [resident(pid) for pid in pids]
    ranges = [LayerRange(*ends) for ends in pairwise((0, *cuts, whole.facts.layers))]
    predicted = [
        predict_stage(
            whole,
            layers,
            is_head=layers is ranges[-1],
            context=CONTEXT,
            kv_type="f16",
            sequences=SEQUENCES,
            batch=BATCH,
        ).total
        for layers in ranges
    ]
    assert measured == [pytest.approx(need, rel=0.05) for need in predicted]
