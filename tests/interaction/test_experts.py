"""A mixture of experts that fits no node: real processes, each with a cut of its own under that name."""

import asyncio
import signal
from collections.abc import AsyncGenerator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest

from mesh_llm.core.experts import ExpertRanking, Quality, best
from mesh_llm.models.catalogue import load_catalogue
from mesh_llm.models.experts.cut_store import CutStore
from mesh_llm.models.experts.quality_files import write_quality
from mesh_llm.models.experts.ranking_files import write_ranking
from mesh_llm.models.library import Library
from mesh_llm.models.places import ModelPlaces
from mesh_llm.models.records import Records
from mesh_llm.models.stages.manifests import Manifests
from mesh_llm.node.mixtures import MixtureSource, mixture_source
from tests.interaction.nodes import BOUND_S, Node, chat_until_ready, started
from tests.interaction.test_mesh import NO_RELAY, listed

pytestmark = pytest.mark.real

NAME = "mixture"
CAPS_GB = ("0.182", "0.192")
"""Of 0.198 that the whole model takes at least; ten of its sixteen experts take 0.174."""
KEPT = (10, 11)
"""Of sixteen, under those caps."""
QUALITY = Quality(25.0, 20.0, 0.5, 0.6, 1020)
SMALL = ("--ctx-size", "2048", "--parallel", "2")
WHOLE = "mesh_llm.engine.whole.child"
MOVE_SECONDS_MAX = 10.0
"""In which a conversation goes on elsewhere whose node is gone."""


def shelf(model: Path, homes: Path, number: int) -> Path:
    """A disk of a node's own, on which the model lies."""
    store = homes / f"store{number}"
    store.mkdir()
    (store / f"{NAME}.gguf").symlink_to(model)
    return store


@asynccontextmanager
async def node(homes: Path, number: int, *flags: str) -> AsyncGenerator[Node]:
    store = homes / f"store{number}"
    cut = ("--model", NAME, "--split", "experts", "--max-vram", CAPS_GB[number], *SMALL)
    async with started(store, homes / f"home{number}", *cut, *flags, *NO_RELAY) as begun:
        yield begun


def engine(node: Node) -> psutil.Process:
    (found,) = [each for each in node.descendants() if WHOLE in each.cmdline() and each.children()]
    return found


async def cuts(node: Node) -> dict[str, Any]:
    """Of all servers that the node lists for the model, by the node's short id."""
    model = (await listed(node)).get(NAME, {"served_by": []})
    return {
        each["node"]: each["approximate"]
        for each in model["served_by"]
        if each["status"] == "ready" and each["approximate"]["perplexity_ratio"]
    }


async def wait_for_cuts(node: Node, count: int) -> dict[str, Any]:
    async with asyncio.timeout(BOUND_S):
        while True:
            found = await cuts(node)
            if len(found) >= count:
                return found
            await asyncio.sleep(0.1)


def computed_s(node: Node) -> float:
    """Processor time of its engine."""
    times = engine(node).cpu_times()
    return times.user + times.system


async def know_the_experts(model: Path, stores: Sequence[Path]) -> None:
    """As if the first had measured the experts, and what both cuts cost: either takes the engine minutes."""
    places = [ModelPlaces(store, store / "none", store / "none.toml") for store in stores]
    source = await source_of(model, places[0])
    shape = source.mixture.shape
    order = {layer: tuple(range(shape.experts)) for layer in shape.layers}
    ranking = ExpertRanking.of(order, "as in its file")
    folder = CutStore(places[0]).folder_of("cut", source.identity)
    write_ranking(folder / "ranking.json", source.identity, ranking)
    for place, count in zip(places, KEPT, strict=True):
        kept = best(ranking, count, shape)
        cut = CutStore(place).place(source.identity, ranking.digest, kept)
        write_quality(cut.with_suffix(".quality.json"), source.identity, kept.digest, QUALITY)


async def source_of(model: Path, places: ModelPlaces) -> MixtureSource:
    records = Records(places.notes, places.store)
    library = Library(places, load_catalogue(places.own_catalogue))
    local = await library.open(library.at(model))
    return await mixture_source(local, Manifests(records), records)


async def test_nodes_too_small_for_a_mixture_each_answer_with_their_best_experts(
    moe_model: Path, tmp_path: Path
):
    stores = [shelf(moe_model, tmp_path, number) for number in range(3)]
    await know_the_experts(stores[0] / f"{NAME}.gguf", stores[:2])
    async with AsyncExitStack() as stack:
        one = await stack.enter_async_context(node(tmp_path, 0))
        join = ("--join", await one.invite())
        await wait_for_cuts(one, 1)
        two = await stack.enter_async_context(node(tmp_path, 1, *join))
        told = await wait_for_cuts(one, 2)
        assert sorted(cut["experts_kept"] for cut in told.values()) == sorted(KEPT)
        assert {cut["perplexity_ratio"] for cut in told.values()} == {1.25}
        await two.wait_for_message("from node")  # its ranking: nobody measures what another has
        pids = [engine(each).pid for each in (one, two)]

        client = await stack.enter_async_context(
            started(tmp_path / "store2", tmp_path / "client", "--client", *join, *NO_RELAY)
        )
        await wait_for_cuts(client, 2)
        before = [computed_s(each) for each in (one, two)]
        for _ in range(4):
            await chat_until_ready(await client.url(), model=NAME, session_id="a")
        busy = [computed_s(each) - was for each, was in zip((one, two), before, strict=True)]
        assert max(busy) > 4 * min(busy)  # all of it at one node
        for each, cap in zip((one, two), CAPS_GB, strict=True):
            assert engine(each).memory_info().rss < float(cap) * 1e9
        assert [engine(each).pid for each in (one, two)] == pids

        (one, two)[busy.index(max(busy))].process.send_signal(signal.SIGKILL)
        async with asyncio.timeout(MOVE_SECONDS_MAX):
            await chat_until_ready(await client.url(), model=NAME, session_id="a")
