"""How soon the second turn of a long conversation begins: `python -m bench.split.second_turn MODEL`.

A conversation whose first turn has some 2,000 tokens, over two stages and whole, each asked in turns. What
counts is the time to the first token of the second turn as a share of the first's.
"""

import argparse
import asyncio
import json
import os
import statistics
import sys
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from typing import Any

import aiohttp

from bench.gateway import HOME, settings_of
from bench.load import Target
from bench.split.candidates import Load, split, whole
from mesh_llm.core.progress import ignore
from mesh_llm.models.obtain import obtain
from mesh_llm.models.places import ModelPlaces

WORDS = 520
TOKENS = 32
LOAD = Load(context=8192, slots=4, batch=256)


async def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", nargs="?", default="SmolLM2-135M-Instruct")
    parser.add_argument("--rounds", type=int, default=5, help="conversations of each (default 5)")
    arguments = parser.parse_args()
    places = ModelPlaces.from_environment(os.environ, HOME)
    model = await obtain(arguments.model, places, ignore)
    settings = await settings_of(arguments.model)
    async with AsyncExitStack() as stack:
        candidates = [
            await stack.enter_async_context(whole(settings, LOAD)),
            await stack.enter_async_context(split(model, places, 2, LOAD)),
        ]
        session = await stack.enter_async_context(
            aiohttp.ClientSession(connector=aiohttp.TCPConnector(force_close=True))
        )
        seen: dict[str, list[tuple[float, float, int]]] = {}
        for number in range(arguments.rounds):
            for candidate in candidates:
                turns = await conversation(session, candidate.target, number)
                seen.setdefault(candidate.target.name, []).append(turns)
    print("| | first turn | second turn | share | of the second's prompt cached |")
    print("|---|---|---|---|---|")
    for name, turns in seen.items():
        first, second, cached = (statistics.median(values) for values in zip(*turns, strict=True))
        print(f"| {name} | {first:.3f} s | {second:.3f} s | {second / first:.3f} | {cached:.0f} |")
    return 0


async def conversation(
    session: aiohttp.ClientSession, target: Target, number: int
) -> tuple[float, float, int]:
    """Seconds to the first token of both turns, and how many tokens of the second's prompt were cached."""
    words = " ".join(f"w{(number * 7919 + place) % 997}" for place in range(WORDS))
    messages = [{"role": "user", "content": f"{words}\nWhat is this?"}]
    first, text, _ = await turn(session, target, messages)
    messages += [{"role": "assistant", "content": text}, {"role": "user", "content": "Say it again."}]
    second, _, cached = await turn(session, target, messages)
    return first, second, cached


async def turn(
    session: aiohttp.ClientSession, target: Target, messages: list[dict[str, str]]
) -> tuple[float, str, int]:
    body = {"model": target.model, "messages": messages, "max_tokens": TOKENS, "temperature": 0}
    began, first = time.perf_counter(), 0.0
    texts: list[str] = []
    cached = 0
    async for event in events(session, target, body | {"stream": True}):
        for choice in event["choices"]:
            if content := choice["delta"].get("content"):
                first = first or time.perf_counter() - began
                texts.append(content)
        cached = event.get("timings", {}).get("cache_n", cached)
    return first, "".join(texts), cached


async def events(
    session: aiohttp.ClientSession, target: Target, body: dict[str, Any]
) -> AsyncIterator[dict[str, Any]]:
    headers = {"Authorization": f"Bearer {target.api_key}"}
    url = target.url + "/v1/chat/completions"
    async with session.post(url, json=body, headers=headers) as response:
        response.raise_for_status()
        async for line in response.content:
            if line.startswith(b"data: {"):
                yield json.loads(line.removeprefix(b"data: "))


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
