"""Nodes that lack the same figures of a mixture and start at once: real processes, each with its own disk."""

import asyncio
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest

from mesh_llm.planner.fit import Wish
from tests.experts.tiny_moe import write_tiny_mixture
from tests.interaction.cut_nodes import cap_just_below
from tests.interaction.nodes import BOUND_S, Node, started
from tests.interaction.test_mesh import NO_RELAY, listed
from tests.tiny_models import write_tiny_model

pytestmark = pytest.mark.real

NAME = "mixture"
MISSING_BYTES = 10_000
"""For the whole, of whose eight experts each takes 20,000."""
SMALL = ("--ctx-size", "512", "--parallel", "1")
RANKED = "its experts are ranked here"


def disk_with_the_mixture(folder: Path) -> Path:
    folder.mkdir()
    write_tiny_mixture(folder / f"{NAME}.gguf", "qwen3moe")
    return folder


def figures_below(folder: Path) -> list[Path]:
    """That were measured there."""
    return list(folder.rglob("*.quality.json"))


async def judged(node: Node) -> list[dict[str, Any]]:
    """What the node lists of both cuts, once it is known what they cost."""
    async with asyncio.timeout(BOUND_S):
        while True:
            servers = (await listed(node)).get(NAME, {"served_by": []})["served_by"]
            cuts = [each["approximate"] for each in servers if each.get("approximate")]
            if len(cuts) == 2 and all(cut["perplexity_ratio"] for cut in cuts):
                return cuts
            await asyncio.sleep(0.1)


async def test_of_two_nodes_that_lack_the_same_figures_one_measures_them_for_both(tmp_path: Path):
    disks = [disk_with_the_mixture(tmp_path / name) for name in ("one", "two")]
    cap = cap_just_below(disks[0] / f"{NAME}.gguf", MISSING_BYTES, Wish(512, 1))
    write_tiny_model(tmp_path / "other.gguf", "llama")
    async with AsyncExitStack() as stack:
        other = await stack.enter_async_context(
            started(tmp_path, tmp_path / "home", "--model", str(tmp_path / "other.gguf"), *NO_RELAY)
        )
        flags = ("--model", NAME, "--split", "experts", "--max-vram", cap, *SMALL)
        join = ("--join", await other.invite(), *NO_RELAY)
        nodes = [
            await stack.enter_async_context(started(disk, tmp_path / f"home of {disk.name}", *flags, *join))
            for disk in disks
        ]
        first, second = await judged(other)
        assert (first["choice"], first["perplexity_ratio"]) == (second["choice"], second["perplexity_ratio"])
        said = [[line["message"] for line in node.log] for node in nodes]
        assert sum(RANKED in message for messages in said for message in messages) == 1
        assert sum("(from node" in message for messages in said for message in messages) == 1
    assert len(figures_below(tmp_path)) == 1, "who is told what a cut costs has not measured it"
