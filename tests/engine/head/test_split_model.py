"""A head and its stages in processes of their own, the test bridging the bytes: one machine's answers."""

import asyncio
import math
import os
import signal

import pytest

from mesh_llm.engine.head.ring_state import RingDown, RingUp
from tests.engine.head.heads import client, kept, split_model, together, whole_engine

pytestmark = pytest.mark.real

PROMPTS = ("The capital of France is", "def fibonacci(n):\n", "Once upon a time, in a village by the sea,")
GREEDY = {"temperature": 0, "max_tokens": 12}
LONG = list(range(100, 300))
BATCH = 64
"""So that the long prompt has several chunks in flight."""


@pytest.fixture(scope="module")
def texts_of_whole(smollm2):
    """Of the long prompt, while the caches are empty (see test_mixed_requests), then of the others."""

    async def ask():
        async with whole_engine(smollm2, threads=1, batch=BATCH) as whole, client(whole) as theirs:
            fields = {"cache_prompt": False, **GREEDY}
            return [await theirs.text(prompt, **fields) for prompt in (LONG, *PROMPTS)]

    return asyncio.run(ask())


@pytest.mark.parametrize("cuts", [(12,), (8, 20)])
async def test_a_split_model_answers_as_the_whole_one(smollm2, tmp_path, cuts, texts_of_whole):
    async with split_model(smollm2, cuts, tmp_path, batch=BATCH) as model, model.ring():
        up = await model.wait_for_states(1)
        assert isinstance(up, RingUp) and up.activations == "f32"
        assert len(up.stage_microseconds) == len(cuts) and up.lap_seconds > 0
        async with client(model.endpoint) as ours:
            assert [await ours.text(prompt, **GREEDY) for prompt in (LONG, *PROMPTS)] == texts_of_whole


async def test_a_scale_for_tokens_is_the_heads_to_apply(gemma3, tmp_path):
    scale = math.sqrt(640)
    with kept(lambda: whole_engine(gemma3, threads=1)) as whole:
        async with split_model(gemma3, (6,), tmp_path, scale) as model, model.ring():
            await model.wait_for_states(1)
            async with client(whole) as theirs, client(model.endpoint) as ours:
                expected = await theirs.text(PROMPTS[0], **GREEDY)
                assert await ours.text(PROMPTS[0], **GREEDY) == expected


async def test_hidden_states_may_enter_the_head_by_a_tensor(smollm2, tmp_path, texts_of_whole):
    async with split_model(smollm2, (12,), tmp_path, entrance="embd") as model, model.ring():
        await model.wait_for_states(1)
        async with client(model.endpoint) as ours:
            assert await ours.text(PROMPTS[1], **GREEDY) == texts_of_whole[2]


async def test_several_at_once_over_two_stages_are_each_answered(smollm2, tmp_path):
    """Ten for four sequences: the others wait. Texts may differ from those alone, see test_mixed_requests."""
    async with split_model(smollm2, (12,), tmp_path) as model, model.ring():
        await model.wait_for_states(1)
        async with client(model.endpoint) as ours:
            answers = await together(
                *(ours.complete(PROMPTS[n % 3], temperature=0, max_tokens=10 + n) for n in range(10))
            )
    assert [answer["usage"]["completion_tokens"] for answer in answers] == list(range(10, 20))
    assert {answer["choices"][0]["finish_reason"] for answer in answers} == {"length"}


async def test_a_killed_stage_ends_answers_honestly_and_a_new_ring_goes_on(smollm2, tmp_path):
    async with split_model(smollm2, (12,), tmp_path) as model, client(model.endpoint) as ours:
        async with model.ring():
            await model.wait_for_states(1)
            expected = await ours.text(PROMPTS[0], **GREEDY)
            stream = ours.events("/v1/completions", {"prompt": PROMPTS[2], "max_tokens": 1500})
            await anext(stream)
            os.kill(model.workers[0].pid, signal.SIGKILL)
            events = [event async for event in stream]
            assert "broken off: the ring was taken down" in events[-1]["error"]["message"]
            assert isinstance(await model.wait_for_states(2), RingDown)
        status, health = await ours.get("/health")
        assert status == 503 and "taken down" in health["error"]["message"]
        status, refused = await ours.post("/v1/completions", {"prompt": "x"})
        assert status == 503 and refused["error"]["type"] == "unavailable_error"
        async with (
            split_model(smollm2, (12,), _other(tmp_path)) as other,
            model.ring([model.sockets[0], other.sockets[1]]),
        ):
            assert isinstance(await model.wait_for_states(3), RingUp)
            assert await ours.text(PROMPTS[0], **GREEDY) == expected


def _other(folder):
    other = folder / "other"
    other.mkdir()
    return other


async def test_a_ring_of_the_wrong_length_is_told_apart(smollm2, tmp_path):
    async with split_model(smollm2, (8, 20), tmp_path) as model, model.ring(model.sockets[:2]):
        state = await model.wait_for_states(1)
    assert state == RingDown("the ring has 1 stages, the plan 2")


async def test_what_is_no_frame_takes_the_ring_down_and_nothing_else(smollm2, tmp_path):
    async with split_model(smollm2, (12,), tmp_path) as model, client(model.endpoint) as ours:
        for states, garbage in enumerate((b"GET / HTTP/1.1\r\n\r\n", bytes(64), b"\xff" * 8), start=1):
            reader, writer = await asyncio.open_unix_connection(model.sockets[0])
            writer.write(garbage)
            async with asyncio.timeout(10):
                await reader.read()
            writer.close()
            assert isinstance(await model.wait_for_states(states), RingDown)
        async with model.ring():
            assert isinstance(await model.wait_for_states(4), RingUp)
            assert await ours.text(PROMPTS[0], **GREEDY)


async def test_half_precision_travels_over_links_that_would_be_slow_without(smollm2, tmp_path):
    async with split_model(smollm2, (12,), tmp_path, activations=None) as model:
        async with model.ring(seconds_per_byte=2e-6):
            up = await model.wait_for_states(1)
            assert isinstance(up, RingUp) and up.activations == "f16"
        async with model.ring():
            up = await model.wait_for_states(3)
            assert isinstance(up, RingUp) and up.activations == "f32"


async def test_half_precision_travels_where_it_is_asked_for(smollm2, tmp_path):
    async with split_model(smollm2, (12,), tmp_path, activations="f16") as model, model.ring():
        up = await model.wait_for_states(1)
        assert isinstance(up, RingUp) and up.activations == "f16"
        async with client(model.endpoint) as ours:
            assert (await ours.text(PROMPTS[0], **GREEDY)).startswith(" Paris")
