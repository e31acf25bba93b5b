from pathlib import Path

import pytest

from mesh_llm.core.errors import EngineFailed
from mesh_llm.engine.experts.judging import judge
from mesh_llm.engine.experts.reference import rows_path
from mesh_llm.engine.experts.settings import Loading
from tests.experts.tiny_moe import TINY_MIXTURES, write_tiny_mixture

pytestmark = pytest.mark.real

MODEL = "ab" * 16
NAME = "deepseek2"
CHUNKS = 2


@pytest.fixture
def full(tmp_path: Path) -> Loading:
    (path,) = write_tiny_mixture(tmp_path / "full.gguf", NAME)
    return Loading(str(path), 1)


@pytest.fixture
def lesser(tmp_path: Path) -> Loading:
    """The same weights, without two experts of each layer."""
    masked = dict.fromkeys(TINY_MIXTURES[NAME].expert_layers, (1, 5))
    (path,) = write_tiny_mixture(tmp_path / "lesser.gguf", NAME, masked=masked)
    return Loading(str(path), 1)


async def test_the_full_model_is_as_good_as_itself(full: Loading, tmp_path: Path):
    found = await judge(full, full, identity=MODEL, reference=tmp_path / "new" / "full.json", chunks=CHUNKS)
    assert found.perplexity == found.full_perplexity and found.ratio == 1.0
    assert found.kl == pytest.approx(0, abs=1e-4)
    assert found.same_top == 1.0 and found.tokens == 510


async def test_a_cut_is_judged_against_what_the_full_model_said_once(
    full: Loading, lesser: Loading, tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    reference = tmp_path / "full.json"
    told: list[str] = []

    async def judged(model: Loading):
        told.clear()
        return await judge(
            model,
            lesser,
            identity=MODEL,
            reference=reference,
            chunks=CHUNKS,
            on_share=lambda word, _: told.append(word),
        )

    first = await judged(full)
    assert first.kl > 0.01 and first.same_top < 1 and first.perplexity != first.full_perplexity
    assert told.count("computing") == 2 * CHUNKS
    gone = Loading("/none.gguf", 1)
    assert await judged(gone) == first
    assert told.count("computing") == CHUNKS
    rows_path(reference).write_bytes(b"damaged")
    with pytest.raises(EngineFailed, match=r"none\.gguf cannot be loaded"):
        await judged(gone)
    assert "its rows do not have" in caplog.text and "must be asked again" in caplog.text
    assert await judged(full) == first


async def test_a_model_of_another_vocabulary_is_no_cut(full: Loading, tmp_path: Path, smollm2: Path):
    with pytest.raises(EngineFailed, match="no cut of it"):
        await judge(
            full, Loading(str(smollm2), 1), identity=MODEL, reference=tmp_path / "full.json", chunks=1
        )
