"""A mixture of experts that fits no node, of which nobody said how it is to be run: real processes."""

import asyncio
import json
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

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
from mesh_llm.node.mixtures import mixture_source
from tests.interaction.nodes import BOUND_S, Node, chat_until_ready, ended, started
from tests.interaction.test_mesh import NO_RELAY, listed

pytestmark = pytest.mark.real

NAME = "mixture"
CAP_GB, KEPT = "0.182", 10
"""Of 0.198 that the whole model takes at least, and of its sixteen experts."""
QUALITY = Quality(25.0, 20.0, 0.5, 0.6, 1020)
FLAGS = ("--model", NAME, "--max-vram", CAP_GB, "--ctx-size", "2048", "--parallel", "2", *NO_RELAY)


def store_with(model: Path, store: Path) -> Path:
    store.mkdir()
    (store / f"{NAME}.gguf").symlink_to(model)
    return store


async def know_the_cut(store: Path) -> Path:
    """As if the engine had measured its experts, and what the cut costs, which takes it minutes."""
    places = ModelPlaces(store, store / "none", store / "none.toml")
    library = Library(places, load_catalogue(places.own_catalogue))
    local = await library.open(library.at(store / f"{NAME}.gguf"))
    records = Records(places.notes, places.store)
    source = await mixture_source(local, Manifests(records), records)
    shape, cuts = source.mixture.shape, CutStore(places)
    ranking = ExpertRanking.of(
        {layer: tuple(range(shape.experts)) for layer in shape.layers}, "as in its file"
    )
    write_ranking(cuts.ranking_path(source.identity), source.identity, ranking)
    kept = best(ranking, KEPT, shape)
    path = cuts.quality_path(source.identity, ranking.digest, kept)
    write_quality(path, source.identity, kept.digest, QUALITY)
    return store


async def listed_once(node: Node, status: str, words: str = "") -> dict[str, Any]:
    """What the node lists for the model, as soon as that is its status and its reason has these words."""
    async with asyncio.timeout(BOUND_S):
        while True:
            model = (await listed(node)).get(NAME, {})
            if model.get("status") == status and words in model.get("reason", ""):
                return model
            await asyncio.sleep(0.1)


async def test_a_mixture_that_no_nodes_hold_together_is_served_as_a_cut_only_if_that_is_good_enough(
    moe_model: Path, tmp_path: Path
):
    """Both cuts are known to have 1.25 x the perplexity of the whole."""
    async with AsyncExitStack() as stack:
        content, strict = [
            await stack.enter_async_context(
                started(
                    await know_the_cut(store_with(moe_model, tmp_path / name)),
                    tmp_path / f"of {name}",
                    *FLAGS,
                    *more,
                )
            )
            for name, more in (("content", ("--moe-quality", "1.3")), ("strict", ()))
        ]
        await chat_until_ready(await content.url(), model=NAME)
        served = (await listed_once(content, "ready"))["approximate"]
        assert (served["experts_kept"], served["perplexity_ratio"]) == (KEPT, 1.25)

        waits = (await listed_once(strict, "waiting", "1.25 x"))["reason"]
        for words in ("1.15 x", "start mesh-llm on one more machine", "--split experts", "--moe-quality"):
            assert words in waits
        assert "approximate" not in await listed_once(strict, "waiting")


async def test_a_ranking_lies_where_both_nodes_and_the_command_look_for_it(moe_model: Path, tmp_path: Path):
    store = await know_the_cut(store_with(moe_model, tmp_path / "store"))
    status, out, _ = await ended(store, tmp_path / "home", "moe", "analyze", NAME, "--json")
    assert status == 0 and json.loads(out)["ranking"]["source"] == "as in its file"
