"""How the experts of the mixture of tests are ranked: measured once by the product, kept beside it.

`tests/conftest.py` sees to it before the first test that needs it: it takes longer than a test may.
"""

from pathlib import Path

from mesh_llm.core.experts import ExpertRanking, ExpertShape
from mesh_llm.engine.experts.calibrating import calibrate
from mesh_llm.models.experts.detection import detect
from mesh_llm.models.experts.ranking_files import kept_ranking
from mesh_llm.models.gguf.header import read_file_header

TOKENS = 2048
"""As good as more of them on this mixture, in a quarter of a minute."""


async def rank(mixture: Path) -> None:
    """So that `ranking_of` finds it."""
    shape = detect([read_file_header(mixture)])
    assert shape is not None
    await ranking_of(mixture, shape)


async def ranking_of(mixture: Path, shape: ExpertShape) -> ExpertRanking:
    """Its file's name stands for its content (`moe_fixture.mixture_path`)."""

    async def measured() -> ExpertRanking:
        return await calibrate(mixture, shape, threads=2, tokens=TOKENS)

    path = ranking_path(mixture)
    return await kept_ranking(path, path.stem.partition(".")[0].rpartition("-")[2], shape, measured, print)


def ranking_path(mixture: Path) -> Path:
    return mixture.resolve().with_suffix(".ranking.json")
