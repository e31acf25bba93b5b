"""Ranking, cutting and judging together, on a mixture that speaks English.

Takes two minutes: MESH_LLM_PROMPTS, more than 2, asks for it.
"""

import os
from pathlib import Path

import pytest

from mesh_llm.core.experts import ExpertRanking, Quality, best
from mesh_llm.engine.experts.calibrating import calibrate
from mesh_llm.engine.experts.judging import judge
from mesh_llm.engine.experts.settings import Loading
from mesh_llm.engine.experts.trying import try_out
from mesh_llm.models.experts.layout import cut_layout
from mesh_llm.models.stages.ranges import FileRanges
from mesh_llm.models.stages.writing import write_file
from tests.models.experts.cuts import IDENTITY, headers, shape_of

IS_ASKED_FOR = int(os.environ.get("MESH_LLM_PROMPTS", "2")) > 2

KEPT = 12
"""Of 16, of which 10 are used."""

pytestmark = [
    pytest.mark.real,
    pytest.mark.timeout(600),
    pytest.mark.skipif(not IS_ASKED_FOR, reason="takes minutes: set MESH_LLM_PROMPTS=20"),
]


async def test_the_experts_that_add_most_are_the_ones_to_keep(moe_model: Path, tmp_path: Path):
    shape = shape_of(headers([moe_model]))
    measured = await calibrate(moe_model, shape, threads=2, tokens=2048)
    backwards = ExpertRanking.of(
        {layer: ids[::-1] for layer, ids in measured.by_layer.items()}, "the worst first"
    )

    async def judged(ranking: ExpertRanking) -> Quality:
        path = tmp_path / f"{ranking.digest}.gguf"
        layout = cut_layout(headers([moe_model]), best(ranking, KEPT, shape))
        await write_file(layout, FileRanges([moe_model]), path, IDENTITY)
        await try_out(path)
        full, cut = (Loading(str(each), 2) for each in (moe_model, path))
        return await judge(full, cut, identity=IDENTITY, reference=tmp_path / "full.json", chunks=2)

    good, bad = await judged(measured), await judged(backwards)
    assert good.ratio < 2 and good.kl < 0.8 and good.same_top > 0.55
    assert bad.ratio > 5 and bad.kl > 2 and bad.same_top < 0.4
