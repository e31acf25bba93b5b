import pytest

from mesh_llm.console.whom import find_node
from mesh_llm.core.errors import RequestRefused
from mesh_llm.core.ids import NodeId

DESK = NodeId("abcd" + "1" * 60)
STUDIO = NodeId("abcd" + "2" * 60)
FEED = NodeId("3" * 64)
NODES = {DESK: "desk", STUDIO: "Büro", FEED: "abcd1"}


@pytest.mark.parametrize(
    ("text", "node"),
    [
        (DESK, DESK),
        (DESK.upper(), DESK),
        ("abcd2", STUDIO),
        ("3333", FEED),
        ("desk", DESK),
        ("BÜRO", STUDIO),
        (" desk ", DESK),
        ("abcd1", DESK),  # an id wins over a name that looks like one
    ],
)
def test_a_node_is_found_by_id_beginning_or_name(text: str, node: NodeId):
    assert find_node(text, NODES) == node


@pytest.mark.parametrize("text", ["abcd", "twin"])
def test_several_that_fit_are_named(text: str):
    with pytest.raises(RequestRefused, match=r"Several nodes .* more digits"):
        find_node(text, {**NODES, NodeId("4" * 64): "twin", NodeId("5" * 64): "twin"})


@pytest.mark.parametrize("text", ["333", "4444", "nobody", "", "3" * 65])
def test_none_that_fits_is_told_with_those_that_are_known(text: str):
    with pytest.raises(RequestRefused, match=r"Known: abcd1 3333333333, Büro"):
        find_node(text, {FEED: "abcd1", STUDIO: "Büro"})


def test_in_an_empty_mesh_there_is_nobody():
    with pytest.raises(RequestRefused, match="no other node"):
        find_node("desk", {})
