"""How fast a node answers with a cut, against one that has the whole mixture in memory.

    python -m bench.experts.serving MODEL.gguf

Both run in a llama-server of their own, asked in turns by one client with the same flags; the engine's own
timings of decoding are taken. A cut uses as many experts for a token as the whole model does, so it reads as
many bytes; which experts it holds makes no difference to its speed. Wants a quiet machine.
"""

import argparse
import asyncio
import statistics
import tempfile
from pathlib import Path
from typing import Any

from mesh_llm.core.experts import ExpertRanking, best
from mesh_llm.models.experts.detection import detect
from mesh_llm.models.experts.layout import cut_layout
from mesh_llm.models.gguf.header import read_file_header
from mesh_llm.models.stages.ranges import FileRanges
from mesh_llm.models.stages.writing import write_file
from tests.engine.head.heads import Client, client, whole_engine

PROMPTS = ("The capital of France is", "Once upon a time, in a village by the sea,", "def fibonacci(n):\n")
IDENTITY = "bec5" * 16


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", type=Path)
    parser.add_argument("--share", type=float, default=0.75, help="of the experts that are kept")
    parser.add_argument("--rounds", type=int, default=21)
    parser.add_argument("--tokens", type=int, default=96)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        cut = Path(folder) / "cut.gguf"
        kept = asyncio.run(write_cut(arguments.model, cut, arguments.share))
        whole, of_cut = asyncio.run(measured(arguments.model, cut, arguments.rounds, arguments.tokens))
    ratios = [mine / theirs for mine, theirs in zip(of_cut, whole, strict=True)]
    print(f"| experts kept | whole, tokens/s | cut, tokens/s | ratio of medians | pairs, of {len(ratios)} |")
    print("|---|---|---|---|---|")
    medians = statistics.median(whole), statistics.median(of_cut)
    print(
        f"| {kept} | {medians[0]:.1f} | {medians[1]:.1f} | {medians[1] / medians[0]:.3f} "
        f"| {min(ratios):.2f} to {max(ratios):.2f} |"
    )
    return 0


async def write_cut(model: Path, target: Path, share: float) -> str:
    header = read_file_header(model)
    shape = detect([header])
    if shape is None:
        raise SystemExit(f"{model} is no mixture of experts.")
    count = shape.at_most(int(share * shape.experts)) or shape.experts
    lists = {layer: tuple(range(shape.experts)) for layer in shape.layers}
    kept = best(ExpertRanking.of(lists, "as they lie"), count, shape)
    await write_file(cut_layout([header], kept), FileRanges([model]), target, IDENTITY)
    return f"{kept.count} of {shape.experts}"


async def measured(model: Path, cut: Path, rounds: int, tokens: int) -> tuple[list[float], list[float]]:
    """Tokens/s of each round, of the whole model and of the cut."""
    speeds: tuple[list[float], list[float]] = ([], [])
    async with (
        whole_engine(model) as whole,
        whole_engine(cut) as of_cut,
        client(whole) as asks_whole,
        client(of_cut) as asks_cut,
    ):
        arms = [(asks_whole, speeds[0]), (asks_cut, speeds[1])]
        for number in range(-1, rounds):
            for engine, told in arms if number % 2 else reversed(arms):
                speed = await asked(engine, PROMPTS[number % len(PROMPTS)], tokens)
                if number >= 0:  # the first round warms up
                    told.append(speed)
    return speeds


async def asked(engine: Client, prompt: str, tokens: int) -> float:
    fields: dict[str, Any] = {
        "temperature": 0,
        "max_tokens": tokens,
        "ignore_eos": True,
        "cache_prompt": False,
    }
    answer = await engine.complete(prompt, **fields)
    return float(answer["timings"]["predicted_per_second"])


if __name__ == "__main__":
    raise SystemExit(main())
