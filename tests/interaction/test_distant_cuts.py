"""A mixture of experts that lies on no disk of the node that serves a cut of it."""

import asyncio
import hashlib
from pathlib import Path

import pytest

from mesh_llm.models.experts.cut_store import CutStore
from mesh_llm.models.experts.ranking_files import write_ranking
from mesh_llm.models.records import Identity, Record, Records
from mesh_llm.node.split_sources import identity_of
from mesh_llm.splits.messages import Part
from tests.experts.kept_ranking import ranking_of
from tests.interaction.cut_nodes import CAPS_GB, NAME, SMALL, counted, places_of, shelf, source_of
from tests.interaction.nodes import BOUND_S, Node, chat_until_ready, started
from tests.interaction.test_mesh import NO_RELAY, listed, wait_until_listed
from tests.models.hub_server import HubServer

pytestmark = pytest.mark.real

EXTRA_MAX = 1.05
"""Bytes fetched, for each byte of the cut."""

HUB_BYTES_MAX = 4 << 20
"""Where a member gives the rest: the header with the vocabulary, which the hub is asked for first."""

AT_HUB = f"org/repo/{NAME}.gguf"


def published(model: Path) -> tuple[str, str]:
    """SHA-256 and identity."""
    data = model.read_bytes()
    sha256 = hashlib.sha256(data).hexdigest()
    return sha256, identity_of([Part(name=model.name, size=len(data), sha256=sha256)])


def publish(model: Path, hub: HubServer) -> None:
    hub.files[AT_HUB] = model.read_bytes()


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


async def wait_for_a_cut(node: Node) -> None:
    """Beside the whole model of that name."""
    async with asyncio.timeout(BOUND_S):
        while True:
            servers = (await listed(node)).get(NAME, {"served_by": []})["served_by"]
            if any(each.get("approximate") and each["status"] == "ready" for each in servers):
                return
            await asyncio.sleep(0.1)


async def fetched_from_members(node: Node) -> float:
    streams = await counted(node, "mesh_llm_mesh_bytes_total")
    return sum(value for labels, value in streams.items() if 'kind="bytes"' in labels)


def size_of(file: Path) -> int:
    return file.stat().st_size


def flags(name: str) -> tuple[str, ...]:
    return ("--model", name, "--split", "experts", "--max-vram", CAPS_GB[0], *SMALL, *NO_RELAY)


async def test_a_node_without_the_file_fetches_only_what_its_cut_keeps(moe_model: Path, tmp_path: Path):
    whole, store = shelf(moe_model, tmp_path, 0), tmp_path / "empty"
    await know_the_published(moe_model, whole, store)
    async with HubServer() as hub:
        publish(moe_model, hub)
        async with started(store, tmp_path / "cut", *flags(AT_HUB), HF_ENDPOINT=hub.url) as cut:
            await chat_until_ready(await cut.url(), model=NAME, max_tokens=1)
            assert hub.bytes_sent <= EXTRA_MAX * cut_bytes(store)


async def test_a_member_that_serves_the_whole_model_gives_the_bytes_instead_of_the_hub(
    moe_model: Path, tmp_path: Path
):
    whole, store = shelf(moe_model, tmp_path, 0), tmp_path / "empty"
    await know_the_published(moe_model, whole, store)
    async with HubServer() as hub:
        publish(moe_model, hub)
        async with started(whole, tmp_path / "whole", "--model", NAME, *SMALL, *NO_RELAY) as holder:
            await wait_until_listed(holder, NAME)
            join = ("--join", await holder.invite())
            async with started(store, tmp_path / "cut", *flags(AT_HUB), *join, HF_ENDPOINT=hub.url) as cut:
                await wait_for_a_cut(cut)
                assert hub.bytes_sent <= HUB_BYTES_MAX
                # Chunks are larger than the experts of this model: nearly all are touched.
                assert cut_bytes(store) - HUB_BYTES_MAX < await fetched_from_members(cut) < size_of(moe_model)
