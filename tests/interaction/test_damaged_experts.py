"""What lies damaged in the home of a node or command: said with the reason, and made anew. Real processes."""

import json
from pathlib import Path

import pytest

from mesh_llm.planner.fit import Wish
from tests.experts.tiny_moe import write_tiny_mixture
from tests.interaction.cut_nodes import cap_just_below
from tests.interaction.nodes import Node, chat_until_ready, ended, started
from tests.interaction.test_mesh import NO_RELAY

pytestmark = pytest.mark.real

NAME = "tiny"
COUNT = b"qwen3moe.expert_count\x04\0\0\0"
"""As its header has it, before the number."""
CAP = "0.03"
"""Of which a cut of it needs twice as much, so it is asked whether it can be cut at all."""
SMALL = ("--ctx-size", "512", "--parallel", "1")
MISSING_BYTES = 10_000
"""For the whole, of whose eight experts each takes 20,000."""


@pytest.fixture
def store(tmp_path: Path) -> Path:
    """With a mixture that computes nonsense, which it does as any other."""
    folder = tmp_path / "store"
    folder.mkdir()
    write_tiny_mixture(folder / f"{NAME}.gguf", "qwen3moe")
    return folder


def kept(store: Path, pattern: str) -> Path:
    """The one file of that name among what is kept of mixtures."""
    (found,) = (store / ".mesh-llm" / "experts").glob(f"*/{pattern}")
    return found


def altered(file: Path) -> bytes:
    """One bit of its last byte; gives what it was."""
    content = file.read_bytes()
    file.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    return content


async def test_commands_say_why_a_ranking_is_of_no_use_and_measure_it_again(store: Path, tmp_path: Path):
    analyze = ("moe", "analyze", NAME, "--json")
    _, first, _ = await ended(store, tmp_path, *analyze)
    ranking = kept(store, "ranking.json")
    fields = json.loads(ranking.read_text())
    fields["layers"]["0"].reverse()
    ranking.write_text(json.dumps(fields))

    status, _, said = await ended(store, tmp_path, "moe", "plan", NAME, "--nodes", "1")
    assert status == 0 and "its lists have been altered" in said
    assert f"`mesh-llm moe analyze {NAME}` does that" in said

    status, again, said = await ended(store, tmp_path, *analyze)
    assert status == 0 and "its lists have been altered. It must be measured again" in said
    assert json.loads(again)["ranking"]["digest"] == json.loads(first)["ranking"]["digest"]
    assert json.loads(ranking.read_text())["layers"]["0"] == fields["layers"]["0"][::-1]


@pytest.mark.parametrize(
    ("said", "instead", "why", "cure"),
    [
        (
            b"blk.0.ffn_up_exps",
            b"blk.0.ffn_uq_exps",
            "what `blk.0.ffn_uq_exps.weight` has of each expert is not known",
            "split it by layers",
        ),
        (COUNT + b"\x08", COUNT + b"\x09", "has rows of 8 experts, the model has 9", "Fetch the model again"),
    ],
    ids=["a tensor that nobody has read about", "a count that its tensors contradict"],
)
async def test_a_mixture_that_cannot_be_cut_is_refused_with_the_reason_and_the_cure(
    store: Path, tmp_path: Path, said: bytes, instead: bytes, why: str, cure: str
):
    model = store / f"{NAME}.gguf"
    model.write_bytes(model.read_bytes().replace(said, instead, 1))
    status, _, error = await ended(store, tmp_path, "moe", "analyze", NAME)
    assert status != 0 and why in error and cure in error
    flags = ("--model", NAME, "--split", "experts", "--max-vram", CAP, "--port", "0", "--console", "0")
    status, _, error = await ended(store, tmp_path / "home", *flags, *SMALL, *NO_RELAY)
    assert status != 0 and why in error and cure in error


async def test_a_node_says_why_its_ranking_its_cut_and_its_figures_are_of_no_use_and_makes_them_anew(
    store: Path, tmp_path: Path
):
    cap = cap_just_below(store / f"{NAME}.gguf", MISSING_BYTES, Wish(512, 1))
    flags = ("--model", NAME, "--split", "experts", "--max-vram", cap, *SMALL, *NO_RELAY)
    async with started(store, tmp_path / "home", *flags) as node:
        await answers(node)
    right = kept(store, "*.gguf").read_bytes()

    kept(store, "ranking.json").write_text("{")
    assert altered(kept(store, "*.gguf")) == right
    kept(store, "*.gguf").with_suffix(".quality.json").write_text("7")
    async with started(store, tmp_path / "home", *flags) as node:
        await answers(node)
        ranking = await node.wait_for_message("ranking of experts is of no use")
        assert "cut off, or no JSON. It must be measured again" in ranking["message"]
        cut = await node.wait_for_message("is made anew")
        assert "its bytes were altered" in cut["message"]
        figures = await node.wait_for_message("What this cut costs is not known")
        assert "It must be judged again" in figures["message"]
    assert kept(store, "*.gguf").read_bytes() == right


async def answers(node: Node) -> None:
    await chat_until_ready(await node.url(), model=NAME)
