"""Nodes that are too small for the mixture of tests, as a user starts them, and what can be seen of them."""

import asyncio
import re
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import psutil

from mesh_llm.core.experts import ExpertRanking, ExpertShape, Kept, Quality, best
from mesh_llm.core.quantities import GB
from mesh_llm.models.catalogue import load_catalogue
from mesh_llm.models.experts.cut_store import CutStore
from mesh_llm.models.experts.quality_files import write_quality
from mesh_llm.models.experts.ranking_files import write_ranking
from mesh_llm.models.gguf.header import read_file_header
from mesh_llm.models.gguf.model_facts import facts_of
from mesh_llm.models.library import Library
from mesh_llm.models.places import ModelPlaces
from mesh_llm.models.records import Records
from mesh_llm.models.stages.manifests import Manifests
from mesh_llm.node.mixtures import MixtureSource, mixture_source
from mesh_llm.planner.fit import Wish, least
from tests.experts.kept_ranking import ranking_of
from tests.interaction.nodes import BOUND_S, Node, chat, started
from tests.interaction.test_mesh import NO_RELAY, listed

NAME = "mixture"
CAPS_GB = ("0.192", "0.197")
"""Of 0.1976 that the whole model takes at least; ten of its sixteen experts take 0.174."""
KEPT = (11, 12)
"""Of sixteen, under those caps."""
QUALITY = Quality(25.0, 20.0, 0.5, 0.6, 1020)
SMALL = ("--ctx-size", "2048", "--parallel", "2")
WHOLE = "mesh_llm.engine.whole.child"
BETWEEN_NODES = ("tunnel", "stage", "ring", "bytes", "ranking")
"""All kinds of streams but those by which members know of each other."""


def shelf(model: Path, homes: Path, number: int) -> Path:
    """A disk of a node's own, on which the model lies."""
    store = homes / f"store{number}"
    store.mkdir()
    (store / f"{NAME}.gguf").symlink_to(model)
    return store


@asynccontextmanager
async def cut_node(homes: Path, number: int, *flags: str, cap_gb: str = "") -> AsyncGenerator[Node]:
    store = homes / f"store{number}"
    cut = ("--model", NAME, "--split", "experts", "--max-vram", cap_gb or CAPS_GB[number], *SMALL)
    async with started(store, homes / f"home{number}", *cut, *flags, *NO_RELAY) as begun:
        yield begun


def cap_just_below(mixture: Path, missing_bytes: int, wish: Wish) -> str:
    """In GB: so much less than the whole of it takes at least."""
    whole = least(facts_of([read_file_header(mixture)]), wish).total
    return f"{(whole - missing_bytes) / GB:.6f}"


def engine(node: Node) -> psutil.Process:
    (found,) = [each for each in node.descendants() if WHOLE in each.cmdline() and each.children()]
    return found


async def cuts(node: Node) -> dict[str, Any]:
    """Of all servers that the node lists for the model as ready with a cut, by the node's short id."""
    model = (await listed(node)).get(NAME, {"served_by": []})
    ready = [each for each in model["served_by"] if each["status"] == "ready"]
    return {each["node"]: each["approximate"] for each in ready if each.get("approximate")}


async def wait_for_cuts(node: Node, count: int) -> dict[str, Any]:
    """Until so many are ready, and it is known of each what it costs."""
    async with asyncio.timeout(BOUND_S):
        while True:
            found = await cuts(node)
            if len(found) >= count and all(each["perplexity_ratio"] for each in found.values()):
                return found
            await asyncio.sleep(0.1)


async def counted(node: Node, name: str) -> Mapping[str, float]:
    """Of one metric that the node tells, by its labels."""
    async with aiohttp.ClientSession() as client, client.get(f"{await node.url()}/metrics") as answer:
        text = await answer.text()
    found = re.findall(rf"^{name}\{{(.*)\}} (\S+)$", text, re.MULTILINE)
    return {labels: float(value) for labels, value in found}


async def bytes_between(node: Node) -> float:
    """That it has exchanged with other nodes since its start, gossip apart."""
    streams = await counted(node, "mesh_llm_mesh_bytes_total")
    return sum(
        value for labels, value in streams.items() if re.search(r'kind="(\w+)"', labels)[1] in BETWEEN_NODES
    )


async def served(node: Node) -> float:
    """How many questions of other nodes' clients it has answered with its cut."""
    answers = await counted(node, "mesh_llm_answers_total")
    return sum(value for labels, value in answers.items() if NAME in labels and 'way="served"' in labels)


async def place_of(asked: Node, nodes: Sequence[Node], **fields: Any) -> Node:
    """Who of `nodes` answers what `asked` is asked."""
    before = [await served(node) for node in nodes]
    status, body = await chat(await asked.url(), model=NAME, **{"max_tokens": 1} | fields)
    assert status == 200, body
    async with asyncio.timeout(BOUND_S):  # it is counted once the answer has ended
        while True:
            more = [await served(node) - was for node, was in zip(nodes, before, strict=True)]
            if any(more):
                assert sorted(more) == [0] * (len(nodes) - 1) + [1]
                return nodes[more.index(1)]


async def know_the_experts(model: Path, stores: Sequence[Path]) -> None:
    """As if the first had measured the experts, and what both cuts cost: either takes the engine minutes."""
    ranking, shape = await know_the_ranking(model, stores[0])
    for store, count in zip(stores, KEPT, strict=True):
        await know_what_it_costs(store, ranking, best(ranking, count, shape))


async def know_the_ranking(model: Path, store: Path) -> tuple[ExpertRanking, ExpertShape]:
    source = await source_of(store)
    ranking = await ranking_of(model, source.mixture.shape)
    folder = CutStore(places_of(store)).folder_of("cut", source.identity)
    write_ranking(folder / "ranking.json", source.identity, ranking)
    return ranking, source.mixture.shape


async def know_what_it_costs(store: Path, ranking: ExpertRanking, kept: Kept) -> None:
    identity = (await source_of(store)).identity
    cut = CutStore(places_of(store)).place(identity, ranking.digest, kept)
    write_quality(cut.with_suffix(".quality.json"), identity, kept.digest, QUALITY)


async def source_of(store: Path) -> MixtureSource:
    places = places_of(store)
    records = Records(places.notes, places.store)
    library = Library(places, load_catalogue(places.own_catalogue))
    local = await library.open(library.at(store / f"{NAME}.gguf"))
    return await mixture_source(local, Manifests(records), records)


def places_of(store: Path) -> ModelPlaces:
    return ModelPlaces(store, store / "none", store / "none.toml")
