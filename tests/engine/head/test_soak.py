"""Requests of all kinds at once, for long, on a head and a stage: nothing may be left behind.

A sequence, a cell or a slot that leaked would be missing at the end, when answers need all of them; memory
that leaked would show in the processes.
"""

import asyncio
import contextlib
import os
import random
from collections.abc import Awaitable, Callable

import psutil
import pytest

from tests.engine.head.heads import Client, client, split_model, together

pytestmark = pytest.mark.real

REQUESTS = int(os.environ.get("MESH_LLM_SOAK", "18"))
AT_ONCE = 8
ROUND = 12
CONTEXT = 768
SEQUENCES = 4
"""As `split_model` makes them."""
GROWTH_BYTES_MAX = 48 << 20
"""Of one process, once a quarter of the requests has been answered."""

BEGINNINGS = ("The capital of France is", "Once upon a time, in a village by the sea,", "def fibonacci(n):\n")
BAD = (
    {"prompt": ""},
    {"prompt": [10**9]},
    {"prompt": [28] * CONTEXT},
    {"prompt": "x", "temperature": "hot"},
    {"prompt": "x", "max_tokens": -5},
    {"prompt": "x", "grammar": "root ::= ("},
    {"prompt": "x", "json_schema": {"type": "nothing"}},
    {"prompt": "x", "logit_bias": [[10**9, 1]], "stop": [7]},
    {},
)

Doing = Callable[[Client, random.Random], Awaitable[None]]


async def plain(ours: Client, chance: random.Random) -> None:
    length = chance.randrange(1, 12)
    answer = await ours.complete(chance.choice(BEGINNINGS), max_tokens=length, ignore_eos=True)
    assert answer["usage"]["completion_tokens"] == length


async def long_prompt(ours: Client, chance: random.Random) -> None:
    """Some begin alike; four others together have more tokens than the cache."""
    tokens = [100 + chance.randrange(2)] * chance.randrange(150, 240) + [chance.randrange(1000, 2000)] * 20
    answer = await ours.complete(tokens, max_tokens=2, ignore_eos=True, cache_prompt=chance.random() < 0.8)
    assert answer["usage"]["prompt_tokens"] == len(tokens)


async def next_turn(ours: Client, chance: random.Random) -> None:
    messages = [{"role": "user", "content": f"Say {chance.randrange(3)}."}]
    for _ in range(2):
        body = {"messages": messages, "max_tokens": 8, "temperature": 0}
        status, answer = await ours.post("/v1/chat/completions", body)
        assert status == 200, answer
        messages += [answer["choices"][0]["message"], {"role": "user", "content": "Go on."}]


async def several(ours: Client, chance: random.Random) -> None:
    answer = await ours.complete(chance.choice(BEGINNINGS), max_tokens=4, n=3, logprobs=2, seed=5)
    assert len(answer["choices"]) == 3


async def in_form(ours: Client, chance: random.Random) -> None:
    schema = {"type": "array", "items": {"enum": list(range(chance.randrange(1, 4)))}, "maxItems": 3}
    await ours.complete("A list:", json_schema=schema, max_tokens=12)


async def hung_up_amidst(ours: Client, chance: random.Random) -> None:
    stream = ours.events(
        "/v1/completions", {"prompt": chance.choice(BEGINNINGS), "max_tokens": 600, "ignore_eos": True}
    )
    for _ in range(chance.randrange(1, 5)):
        await anext(stream)
    await stream.aclose()


async def hung_up_before(ours: Client, chance: random.Random) -> None:
    """While its prompt is computed, or while it waits."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(chance.uniform(0.001, 0.3)):
            await ours.complete([chance.randrange(100, 110)] * 500, max_tokens=50)


async def bad(ours: Client, chance: random.Random) -> None:
    status, answer = await ours.post("/v1/completions", chance.choice(BAD))
    assert 400 <= status < 500 and answer["error"]["message"], answer


KINDS: tuple[Doing, ...] = (
    plain,
    plain,
    long_prompt,
    next_turn,
    several,
    in_form,
    hung_up_amidst,
    hung_up_before,
    bad,
)


async def do(ours: Client, kinds: list[Doing], chance: random.Random) -> None:
    """All of them, so many at once."""
    turns = asyncio.Semaphore(AT_ONCE)

    async def in_turn(kind: Doing) -> None:
        async with turns:
            await kind(ours, chance)

    await together(*(in_turn(kind) for kind in kinds))


async def nothing_is_missing(ours: Client) -> None:
    """One answer that needs all cells, then one in every sequence at once; and nobody is under way."""
    whole = await ours.complete([28] * (CONTEXT - 4), max_tokens=100, ignore_eos=True)
    assert whole["usage"]["total_tokens"] == CONTEXT
    words = ("One", "Two", "Red", "Sun")
    answers = await together(*(ours.complete(w, max_tokens=40, ignore_eos=True) for w in words[:SEQUENCES]))
    assert {answer["usage"]["completion_tokens"] for answer in answers} == {40}
    async with ours.session.get(ours.endpoint.url + "/metrics") as response:
        metrics = await response.text()
    assert "requests_processing 0\n" in metrics and "requests_deferred 0\n" in metrics


async def test_mixed_requests_leak_no_slot_no_sequence_and_no_memory(smollm2, tmp_path, record_property):
    chance = random.Random(REQUESTS)
    kinds = [KINDS[number % len(KINDS)] for number in range(REQUESTS)]
    chance.shuffle(kinds)
    async with (
        split_model(smollm2, (15,), tmp_path, context_length=CONTEXT, seconds_max=60 + 4 * REQUESTS) as model,
        model.ring(),
    ):
        await model.wait_for_states(1)
        processes = [psutil.Process(pid) for pid in (model.head.pid, model.workers[0].pid)]
        early: list[int] = []
        for first in range(0, REQUESTS, ROUND):
            async with client(model.endpoint) as ours:
                await do(ours, kinds[first : first + ROUND], chance)
            if not early and first + ROUND >= REQUESTS / 4:
                early = [process.memory_info().rss for process in processes]
        async with client(model.endpoint) as ours:
            await nothing_is_missing(ours)
        grown = [process.memory_info().rss - rss for process, rss in zip(processes, early, strict=True)]
        record_property("bytes grown of head and stage", grown)
        assert max(grown) < GROWTH_BYTES_MAX, grown
        assert len(model.states) == 1, "the ring was never down"
