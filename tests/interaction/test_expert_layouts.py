"""Cuts that depend on who else is there: real processes with the layout `shared`, and keys known ahead,
since by their ids nodes share out what is not everywhere.
"""

import asyncio
import itertools
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from random import Random

import pytest

from mesh_llm.core.experts import ExpertRanking, ExpertShape, Kept
from mesh_llm.core.ids import NodeId
from mesh_llm.mesh.admission.signatures import NodeKey
from mesh_llm.mesh.home.files import replace_private
from mesh_llm.mesh.home.identity import KEY_FILE
from mesh_llm.planner.expert_deal import dealt
from tests.experts.english import reads_as_english
from tests.interaction.cut_nodes import (
    CAPS_GB,
    KEPT,
    NAME,
    cut_node,
    cuts,
    engine,
    know_the_ranking,
    know_what_it_costs,
    shelf,
)
from tests.interaction.nodes import BOUND_S, Node, chat_until_ready
from tests.interaction.test_mesh import NO_RELAY

pytestmark = pytest.mark.real

COUNTS = (*KEPT, KEPT[1])
"""Of experts that fit on three nodes; the third comes later."""
CAPS = (*CAPS_GB, CAPS_GB[1])


def lists(
    keys: Sequence[NodeKey], ranking: ExpertRanking, shape: ExpertShape
) -> Sequence[Mapping[NodeId, Kept]]:
    """Of who is there when one, two and three have come."""
    counts = {key.node: count for key, count in zip(keys, COUNTS, strict=True)}
    return [
        dealt(shape, ranking, dict(itertools.islice(counts.items(), there)), "shared") for there in (1, 2, 3)
    ]


def keys_by_which_one_list_changes(ranking: ExpertRanking, shape: ExpertShape) -> Sequence[NodeKey]:
    """The first keeps the same whoever comes, the second changes when the third comes."""
    for number in itertools.count():
        chance = Random(number)
        keys = [NodeKey.draw(chance) for _ in COUNTS]
        first, second, _ = [key.node for key in keys]
        one, two, three = lists(keys, ranking, shape)
        if one[first] == two[first] == three[first] and two[second] != three[second]:
            return keys
    raise AssertionError


async def test_of_a_shared_layout_only_the_node_whose_list_has_changed_cuts_again(
    moe_model: Path, tmp_path: Path
):
    stores = [shelf(moe_model, tmp_path, number) for number in range(3)]
    ranking, shape = await know_the_ranking(moe_model, stores[0])
    keys = keys_by_which_one_list_changes(ranking, shape)
    for number, key in enumerate(keys):
        replace_private(tmp_path / f"home{number}" / KEY_FILE, key.seed)
    _, two_there, three_there = lists(keys, ranking, shape)
    for there in (two_there, three_there):
        for key, store in zip(keys, stores, strict=True):
            if key.node in there:
                await know_what_it_costs(store, ranking, there[key.node])

    async with AsyncExitStack() as stack:
        one = await stack.enter_async_context(cut_node(tmp_path, 0, "--moe-layout", "shared"))
        flags = ("--moe-layout", "shared", "--join", await one.invite(), *NO_RELAY)
        await one.wait_for_message("is ready")
        pid = engine(one).pid
        two = await stack.enter_async_context(cut_node(tmp_path, 1, *flags))
        await wait_for_lists(one, two_there)
        before = engine(two).pid

        three = await stack.enter_async_context(cut_node(tmp_path, 2, *flags, cap_gb=CAPS[2]))
        await two.wait_for_message("other experts are to be kept")
        for node in (one, two, three):
            await wait_for_lists(node, three_there)
            await answers_in_english(node)
        assert engine(one).pid == pid and not any("cut again" in line["message"] for line in one.log)
        assert engine(two).pid != before


async def wait_for_lists(node: Node, expected: Mapping[NodeId, Kept]) -> None:
    """Until the node lists as ready just those cuts, and what each of them costs."""
    digests = sorted(kept.digest for kept in expected.values())
    async with asyncio.timeout(BOUND_S):
        while True:
            found = await cuts(node)
            if sorted(cut["choice"] for cut in found.values()) == digests:
                assert {cut["perplexity_ratio"] for cut in found.values()} == {1.25}
                return
            await asyncio.sleep(0.1)


async def answers_in_english(node: Node) -> None:
    answer = await chat_until_ready(
        await node.url(),
        model=NAME,
        messages=[{"role": "user", "content": "What is the Python programming language?"}],
        max_tokens=32,
        temperature=0,
        repeat_penalty=1.3,
    )
    text = answer["choices"][0]["message"]["content"]
    assert reads_as_english(text), text
