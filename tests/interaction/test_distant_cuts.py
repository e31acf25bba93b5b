"""A mixture of experts that lies on no disk of the node that serves a cut of it."""

import hashlib
from pathlib import Path

import pytest

from mesh_llm.models.experts.cut_store import CutStore
from mesh_llm.models.experts.ranking_files import write_ranking
from mesh_llm.models.records import Identity, Record, Records
from mesh_llm.node.split_sources import identity_of
from mesh_llm.splits.messages import Part
from tests.experts.kept_ranking import ranking_of
from tests.interaction.cut_nodes import CAPS_GB, NAME, SMALL, places_of, shelf, source_of
from tests.interaction.nodes import chat_until_ready, started
from tests.interaction.test_mesh import NO_RELAY
from tests.models.hub_server import HubServer

pytestmark = pytest.mark.real

EXTRA_MAX = 1.05
"""Bytes fetched, for each byte of the cut."""


def published(model: Path) -> tuple[str, str]:
    """SHA-256 and identity."""
    data = model.read_bytes()
    sha256 = hashlib.sha256(data).hexdigest()
    return sha256, identity_of([Part(name=model.name, size=len(data), sha256=sha256)])


def publish(model: Path, hub: HubServer) -> None:
    hub.files[f"org/repo/{NAME}.gguf"] = model.read_bytes()


async def know_the_published(model: Path, whole: Path, store: Path) -> None:
    """`store` has the ranking of what the hub publishes, and nothing else."""
    sha256, identity = published(model)
    file = whole / f"{NAME}.gguf"
    places = places_of(whole)
    Records(places.notes, places.store).write(file, Record(sha256, Identity.of(file), ""))
    ranking = await ranking_of(model, (await source_of(whole)).mixture.shape)
    write_ranking(CutStore(places_of(store)).ranking_path(identity), identity, ranking)


def cut_bytes(store: Path) -> int:
    (cut,) = store.rglob("*.gguf")
    return cut.stat().st_size


async def test_a_node_without_the_file_fetches_only_what_its_cut_keeps(moe_model: Path, tmp_path: Path):
    whole, store = shelf(moe_model, tmp_path, 0), tmp_path / "empty"
    await know_the_published(moe_model, whole, store)
    async with HubServer() as hub:
        publish(moe_model, hub)
        flags = ("--model", f"org/repo/{NAME}.gguf", "--split", "experts", "--max-vram", CAPS_GB[0], *SMALL)
        async with started(store, tmp_path / "cut", *flags, *NO_RELAY, HF_ENDPOINT=hub.url) as cut:
            await chat_until_ready(await cut.url(), model=NAME, max_tokens=1)
            assert hub.bytes_sent <= EXTRA_MAX * cut_bytes(store)
