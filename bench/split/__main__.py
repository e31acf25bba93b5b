"""The table of splits in docs/benchmarks.md: `python -m bench.split --rounds 9`.

All candidates live at once and are asked in turns, so that noise strikes each alike; what counts is the ratio
of medians. Each process that computes has one core's worth of threads. Needs a C++ compiler for the RPC arm.
"""

import argparse
import asyncio
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import AsyncExitStack
from pathlib import Path

from bench.gateway import HOME, settings_of
from bench.load import Target, ask, burst
from bench.split.candidates import Candidate, Load, over_rpc, split, whole
from mesh_llm.core.progress import ignore
from mesh_llm.models.obtain import obtain
from mesh_llm.models.places import ModelPlaces

TOKENS = {1: 48, 8: 16}
PREFILL_WORDS = 495
"""Of four tokens each."""
TURN_S_MAX = 10.0
"""A candidate that takes longer is asked twice in a row of the table, not in each round."""
LOAD = Load(context=16_384, slots=8, batch=256)


async def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="SmolLM2-135M-Instruct")
    parser.add_argument("--rounds", type=int, default=9, help="of each candidate in each row (default 9)")
    parser.add_argument(
        "--round-trips",
        type=int,
        nargs="*",
        default=(0, 10, 20, 40),
        help="in milliseconds; none: prefill only",
    )
    parser.add_argument("--no-rpc", action="store_true", help="leave out what needs a compiler")
    arguments = parser.parse_args()
    places = ModelPlaces.from_environment(os.environ, HOME)
    model = await obtain(arguments.model, places, ignore)
    settings = await settings_of(arguments.model)
    async with AsyncExitStack() as stack:
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        candidates = [await stack.enter_async_context(whole(settings, LOAD))]
        for stages in (2, 3):
            candidates.append(await stack.enter_async_context(split(model, places, stages, LOAD)))
        for servers in () if arguments.no_rpc else (1, 2):
            rpc = over_rpc(settings, model.facts.layers, servers, LOAD, scratch)
            candidates.append(await stack.enter_async_context(rpc))
        for candidate in candidates:
            await ask(candidate.target, 0, 4)
        await compare(candidates, arguments.rounds, arguments.round_trips)
    return 0


async def compare(candidates: list[Candidate], rounds: int, round_trips: Sequence[int]) -> None:
    names = [candidate.target.name for candidate in candidates]
    print("| | " + " | ".join(names) + " |")
    print("|---|" + "---|" * len(names))
    for round_trip in round_trips:
        for candidate in candidates:
            candidate.delay.seconds = round_trip / 2000
        for streams, tokens in TOKENS.items():
            speeds = await in_turns(candidates, rounds, streams, tokens)
            show(f"tokens/s, {streams} streams, {round_trip} ms", speeds)
    for candidate in candidates:
        candidate.delay.seconds = 0.0
    show("prefill of 2,000 tokens, tokens/s", await prefill(candidates, rounds))


async def in_turns(candidates: list[Candidate], rounds: int, streams: int, tokens: int) -> list[float]:
    """Median tokens a second of each, without the time to the first token where one is asked for."""
    seen: list[list[float]] = [[] for _ in candidates]
    for number in range(rounds):
        for candidate, speeds in zip(candidates, seen, strict=True):
            if len(speeds) < 2 or streams * tokens / speeds[-1] < TURN_S_MAX:
                speeds.append(await speed(candidate.target, streams, tokens, number))
    return [statistics.median(speeds) for speeds in seen]


async def speed(target: Target, streams: int, tokens: int, number: int) -> float:
    if streams > 1:
        return (await burst(target, streams, tokens, number)).tokens_per_second
    answer = await ask(target, number, tokens)
    return (answer.tokens - 1) / (answer.seconds - answer.first_token_s)


async def prefill(candidates: list[Candidate], rounds: int) -> list[float]:
    seen: list[list[float]] = [[] for _ in candidates]
    for number in range(max(3, rounds // 3)):
        for candidate, speeds in zip(candidates, seen, strict=True):
            words = " ".join(f"w{(number * 7919 + place) % 997}" for place in range(PREFILL_WORDS))
            began = time.perf_counter()
            answer = await ask(candidate.target, number, 1, words)
            speeds.append(answer.prompt_tokens / (time.perf_counter() - began))
    return [statistics.median(speeds) for speeds in seen]


def show(what: str, medians: list[float]) -> None:
    """Each with its ratio to the first, the whole model."""
    cells = [f"{median:.4g} ({median / medians[0]:.3f})" for median in medians]
    print(f"| {what} | " + " | ".join(cells) + " |", flush=True)


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
