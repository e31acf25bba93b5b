"""`mesh-llm moe`, as processes."""

import json
from pathlib import Path

import pytest

from tests.interaction.nodes import ended

pytestmark = pytest.mark.real


async def test_a_plan_tells_what_each_machine_holds_and_never_more_than_it_has(
    moe_model: Path, tmp_path: Path
):
    line = ("moe", "plan", str(moe_model), "--nodes", "0.3,0.2,0.05", "--json")
    status, out, _ = await ended(tmp_path / "store", tmp_path, *line)
    whole, cut, small = json.loads(out)["nodes"]
    assert status == 0
    assert whole["experts_kept"] == 16 and 10 <= cut["experts_kept"] < 16
    assert cut["memory_bytes_needed"] <= cut["memory_bytes"] == 200_000_000
    assert cut["perplexity_ratio"] is None and cut["tokens_per_second"] > 0
    assert small["experts_kept"] is None and "10 of 16" in small["problem"]


async def test_a_plan_for_people_says_that_cuts_are_approximate(moe_model: Path, tmp_path: Path):
    line = ("moe", "plan", str(moe_model), "--nodes", "0.3,0.2")
    status, out, _ = await ended(tmp_path / "store", tmp_path, *line)
    assert status == 0 and "approximate, not measured" in out and "exact: the whole model" in out


async def test_a_model_without_experts_is_refused_with_what_helps(smollm2: Path, tmp_path: Path):
    for line in (("analyze", str(smollm2)), ("plan", str(smollm2), "--nodes", "1")):
        status, _, error = await ended(tmp_path / "store", tmp_path, "moe", *line)
        assert status == 2 and "no mixture of experts" in error


async def test_a_file_that_is_no_importance_matrix_ranks_nothing(moe_model: Path, tmp_path: Path):
    imatrix = tmp_path / "no.gguf"
    imatrix.write_text("no GGUF at all")
    line = ("moe", "analyze", str(moe_model), "--imatrix", str(imatrix))
    status, _, error = await ended(tmp_path / "store", tmp_path, *line)
    assert status == 2 and "GGUF" in error
