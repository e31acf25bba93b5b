"""A model at the hub is known by its headers, before anybody decides to fetch it."""

import asyncio
from dataclasses import replace
from pathlib import Path

import pytest

from mesh_llm.models.hub_model import HubModel, look_at_hub
from mesh_llm.models.obtain import obtain
from mesh_llm.models.places import ModelPlaces
from mesh_llm.models.web import Web
from tests.models.conftest import Journey
from tests.models.hub_server import HubServer
from tests.tiny_models import write_tiny_model

REFERENCE = "org/repo/m-00001-of-00003.gguf"


@pytest.fixture
def published(hub: HubServer, tmp_path: Path) -> int:
    """Bytes of all parts."""
    parts = write_tiny_model(tmp_path / "m.gguf", "qwen3", tensors_per_file=30)
    hub.files |= {f"org/repo/{part.name}": part.read_bytes() for part in parts}
    assert len(parts) == 3
    return sum(part.stat().st_size for part in parts)


async def looked_at(places: ModelPlaces, journey: Journey, reference: str = REFERENCE) -> HubModel | None:
    async with asyncio.timeout(30), Web(places) as web:
        return await look_at_hub(reference, places, web, journey.sleep)


async def test_its_headers_say_what_the_whole_model_would(
    hub: HubServer, places: ModelPlaces, journey: Journey, published: int
) -> None:
    there = await looked_at(places, journey)
    assert there is not None and there.bytes == published
    assert len(there.headers) == len(there.parts) == 3
    assert not list(places.store.rglob("*.gguf"))
    here = await obtain(REFERENCE, places, journey.report, sleep=journey.sleep)
    assert (here.name, here.aliases, here.facts) == (there.name, there.aliases, there.facts)
    assert here.sha256 == tuple(part.remote.sha256 for part in there.parts)


async def test_what_lies_here_or_may_not_be_asked_for_is_not_looked_for_there(
    hub: HubServer, places: ModelPlaces, journey: Journey, published: int
) -> None:
    assert await looked_at(replace(places, offline=True), journey) is None
    await obtain(REFERENCE, places, journey.report, sleep=journey.sleep)
    hub.seen.clear()
    assert await looked_at(places, journey) is None
    assert not hub.seen


async def test_a_server_that_tells_no_checksums_is_fetched_from_whole(
    hub: HubServer, places: ModelPlaces, journey: Journey, published: int
) -> None:
    hub.is_hub = False
    assert await looked_at(places, journey) is None
    assert hub.bytes_sent == 0
