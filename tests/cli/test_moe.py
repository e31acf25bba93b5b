"""`mesh-llm moe`, as processes."""

import json
from pathlib import Path

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
from tests.interaction.nodes import ended

pytestmark = pytest.mark.real


async def test_a_plan_tells_what_each_machine_holds_and_never_more_than_it_has(
    moe_model: Path, tmp_path: Path
):
    line = ("moe", "plan", str(moe_model), "--nodes", "0.3,0.2,0.05", "--json")
    status, out, _ = await ended(tmp_path / "store", tmp_path, *line)
    whole, cut, small = json.loads(out)["nodes"]
    assert status == 0
    assert whole["experts_kept"] == 16 and 10 <= cut["experts_kept"] < 16
    assert cut["memory_bytes_needed"] <= cut["memory_bytes"] == 200_000_000
    assert cut["perplexity_ratio"] is None and cut["tokens_per_second"] > 0
    assert small["experts_kept"] is None and "10 of 16" in small["problem"]


async def test_a_plan_for_people_says_that_cuts_are_approximate(moe_model: Path, tmp_path: Path):
    line = ("moe", "plan", str(moe_model), "--nodes", "0.3,0.2")
    status, out, _ = await ended(tmp_path / "store", tmp_path, *line)
    assert status == 0 and "approximate, not measured" in out and "exact: the whole model" in out


async def test_a_plan_tells_what_was_measured_and_takes_damaged_figures_for_none(
    moe_model: Path, tmp_path: Path
):
    store = tmp_path / "store"
    places = ModelPlaces(store, store / "none", store / "none.toml")
    model = store / "mixture.gguf"
    store.mkdir()
    model.symlink_to(moe_model)
    library, records = Library(places, load_catalogue(places.own_catalogue)), Records(places.notes, store)
    local = await library.open(library.at(model))
    source = await mixture_source(local, Manifests(records), records)
    shape = source.mixture.shape
    ranking = ExpertRanking.of(dict.fromkeys(shape.layers, tuple(range(shape.experts))), "as in its file")
    files = CutStore(places)
    write_ranking(files.ranking_path(source.identity), source.identity, ranking)
    line = ("moe", "plan", "mixture", "--nodes", "0.2", "--json")
    _, out, _ = await ended(store, tmp_path, *line)
    kept = best(ranking, json.loads(out)["nodes"][0]["experts_kept"], shape)
    figures = files.quality_path(source.identity, ranking.digest, kept)
    write_quality(figures, source.identity, kept.digest, Quality(25.0, 20.0, 0.4567, 0.614, 1020))
    _, out, _ = await ended(store, tmp_path, *line)
    row = json.loads(out)["nodes"][0]
    assert (row["perplexity_ratio"], row["kl"], row["same_top"]) == (1.25, 0.4567, 0.614)
    _, out, _ = await ended(store, tmp_path, *line[:-1])
    assert "approximate, 1.25 x perplexity, KL 0.457" in out
    figures.write_text("damaged")
    status, out, said = await ended(store, tmp_path, *line)
    assert status == 0 and json.loads(out)["nodes"][0]["perplexity_ratio"] is None
    assert "What this cut costs is not known: it is cut off, or no JSON. It must be judged again" in said


async def test_a_model_without_experts_is_refused_with_what_helps(smollm2: Path, tmp_path: Path):
    for line in (("analyze", str(smollm2)), ("plan", str(smollm2), "--nodes", "1")):
        status, _, error = await ended(tmp_path / "store", tmp_path, "moe", *line)
        assert status == 2 and "no mixture of experts" in error


async def test_a_file_that_is_no_importance_matrix_ranks_nothing(moe_model: Path, tmp_path: Path):
    imatrix = tmp_path / "no.gguf"
    imatrix.write_text("no GGUF at all")
    line = ("moe", "analyze", str(moe_model), "--imatrix", str(imatrix))
    status, _, error = await ended(tmp_path / "store", tmp_path, *line)
    assert status == 2 and "GGUF" in error
