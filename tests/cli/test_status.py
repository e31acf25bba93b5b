"""The mesh as a table, from a fixed snapshot."""

from dataclasses import replace

import pytest

from mesh_llm.cli import tables
from mesh_llm.cli.status import (
    MODEL_TITLES,
    NODE_TITLES,
    cut_rows,
    heading,
    model_rows,
    node_rows,
    stage_rows,
)
from mesh_llm.console.snapshot import DiskModel, MeshStatus, ModelStatus, Snapshot, as_json
from mesh_llm.core.experts import Quality
from mesh_llm.core.ids import MeshId, NodeId
from mesh_llm.core.machine import Machine
from mesh_llm.core.offers import CutOffer, ModelOffer, ServedOffer
from mesh_llm.core.serving import Endpoint, Loading, Ready, Restarting
from mesh_llm.core.stages import LayerRange, StageHolding
from tests.console.peer_for_tests import PEER
from tests.engine.served_model_for_tests import served

READY = Ready(Endpoint("http://127.0.0.1:1", "secret"))
STUDIO = replace(PEER, path="relay")
LAPTOP = replace(
    STUDIO,
    id=NodeId("c" * 64),
    name="laptop",
    is_client=True,
    health="suspect",
    memory_bytes=0,
    served=(),
    busy=0,
    round_trip_s=None,
    path=None,
)
MESH = MeshStatus(NodeId("a" * 64), "desk", MeshId("d" * 32), False, "mesh1x", (STUDIO, LAPTOP))
SNAPSHOT = Snapshot(
    version="1.2.3",
    api_port=9337,
    machine=Machine(8, 16_000_000_000, 9_000_000_000, ()),
    memory_bytes=12_000_000_000,
    models=(
        ModelStatus(served(name="Small"), READY, busy=1, tokens_per_second=99.5),
        ModelStatus(served(name="Qwen3-8B"), Loading(0.25)),
        ModelStatus(served(name="Broken"), Restarting("killed by SIGSEGV", 2, 4)),
    ),
    on_disk=(DiskModel("Spare", 2_500_000_000, vision=False),),
    requests_in_flight=1,
    requests_waiting=1,
    mesh=MESH,
)


def test_own_node_comes_first_then_the_others_with_a_line_for_each_model():
    assert node_rows(as_json(SNAPSHOT)) == [
        ("desk (this node)", "aaaaaaaaaa", "host", "alive", "12.0 GB", "", "2", "Small", "ready", "99.5"),
        ("", "", "", "", "", "", "", "Qwen3-8B", "loading 25%", ""),
        ("", "", "", "", "", "", "", "Broken", "restarting: killed by SIGSEGV", ""),
        (
            *("studio", "bbbbbbbbbb", "host", "alive", "24.0 GB", "12.3 ms (relay)", "3"),
            *("Qwen3-8B", "ready", "41.3"),
        ),
        ("", "", "", "", "", "", "", "Seer", "not ready", ""),
        ("laptop", "cccccccccc", "client", "suspect", "0.0 GB", "", "0", "", "", ""),
    ]


def test_a_cut_is_shown_as_approximate_with_what_it_costs():
    measured = CutOffer("5e2f", "ab", "cd", 12, 16, Quality(25.0, 20.0, 0.4567, 0.614, 1020))
    unmeasured = replace(measured, kept=11, quality=None)
    whole = replace(measured, kept=16)
    here = replace(served(name="Mixture"), cut=measured)
    others = tuple(
        ServedOffer(ModelOffer(name, cut=cut), ready=True)
        for name, cut in (("Mixture", unmeasured), ("Whole", whole), ("Dense", None))
    )
    mesh = replace(MESH, peers=(replace(STUDIO, served=others),))
    status = as_json(replace(SNAPSHOT, models=(ModelStatus(here, READY),), mesh=mesh))
    assert list(cut_rows(status)) == [
        ("Mixture", "desk (this node)", "12 of 16", "1.25 x", "0.457", "61%"),
        ("Mixture", "studio", "11 of 16", "not measured", "", ""),
    ]
    assert list(cut_rows(as_json(SNAPSHOT))) == []


def test_a_split_model_is_shown_with_who_runs_which_layers():
    stages = (
        StageHolding(STUDIO.id, "studio", LayerRange(0, 20), is_head=False),
        StageHolding(MESH.node_id, "desk", LayerRange(20, 32), is_head=True),
    )
    here = replace(served(name="Big"), stages=stages)
    there = replace(STUDIO, served=(ServedOffer(ModelOffer("Big", stages=stages), ready=True),))
    rows = [
        ("Big", "0-19", "studio", "bbbbbbbbbb", ""),
        ("", "20-31", "desk", "aaaaaaaaaa", "samples and answers"),
    ]
    assert list(stage_rows(as_json(replace(SNAPSHOT, models=(ModelStatus(here, READY),))))) == rows
    elsewhere = replace(SNAPSHOT, models=(), mesh=replace(MESH, peers=(there,)))
    assert list(stage_rows(as_json(elsewhere))) == rows
    assert list(stage_rows(as_json(SNAPSHOT))) == []


def test_every_model_of_the_mesh_is_counted():
    assert list(model_rows(as_json(SNAPSHOT))) == [
        ("Broken", "cold", "0", "0.1 GB"),
        ("Qwen3-8B", "warm", "1", "5.0 GB"),
        ("Seer", "cold", "0", ""),
        ("Small", "warm", "1", "0.1 GB"),
        ("Spare", "cold", "0", "2.5 GB"),
    ]


def test_the_heading_names_the_mesh_and_counts_its_nodes():
    assert heading(as_json(SNAPSHOT)) == "mesh dddddddddd, 3 nodes, 1 answering, 1 waiting"


def test_a_node_without_a_mesh_and_without_models_has_a_line_too():
    alone = as_json(replace(SNAPSHOT, mesh=None, models=(), requests_in_flight=0, requests_waiting=0))
    assert heading(alone) == "no mesh, 1 node, 0 answering, 0 waiting"
    (row,) = node_rows(alone)
    assert row == ("(this node)", "", "worker", "alive", "12.0 GB", "", "0", "", "", "")


def test_the_table_is_whole_on_a_pipe(capsys: pytest.CaptureFixture[str]):
    status = as_json(SNAPSHOT)
    tables.show(NODE_TITLES, node_rows(status))
    tables.show(MODEL_TITLES, model_rows(status))
    out = capsys.readouterr().out.splitlines()
    assert out[0].split() == [
        *("node", "id", "role", "health", "memory", "round", "trip", "busy"),
        *("model", "state", "tokens/s"),
    ]
    assert " ".join(out[1].split()) == "desk (this node) aaaaaaaaaa host alive 12.0 GB 2 Small ready 99.5"
    assert [line.split()[0] for line in out[8:]] == ["Broken", "Qwen3-8B", "Seer", "Small", "Spare"]


def test_a_name_from_another_node_cannot_steer_the_terminal(capsys: pytest.CaptureFixture[str]):
    evil = replace(STUDIO, name="\x1b]0;owned\x07[red]x[/red]\nb", served=())
    tables.show(NODE_TITLES, node_rows(as_json(replace(SNAPSHOT, mesh=replace(MESH, peers=(evil,))))))
    out = capsys.readouterr().out
    assert "?]0;owned?[red]x[/red]?b" in out and "\x1b" not in out
