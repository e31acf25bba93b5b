"""What every test may ask for: the two small models that package wheels carry, and bounded waiting."""

from pathlib import Path

import pytest

MODELS = Path(__file__).parent.parent / ".test-models"


@pytest.fixture(scope="session")
def smollm2() -> Path:
    return MODELS / "SmolLM2-135M-Instruct.Q4_1.gguf"


@pytest.fixture(scope="session")
def gemma3() -> Path:
    return MODELS / "gemma-3-270m-q4_k_m.gguf"
