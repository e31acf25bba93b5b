"""One request's life, with engines that break at every point of it."""

import asyncio
import io
import json
from typing import Any

import aiohttp
import pytest

from mesh_llm.core.limits import REQUEST_BODY_BYTES_MAX
from mesh_llm.core.serving import Failed, Loading, Restarting
from tests.gateway.broken_engine import (
    CHUNK,
    LAST,
    answers_well,
    broken_engine,
    dies_after_its_head,
    dies_before_its_head,
    dies_in_mid_stream,
    ends_without_an_end,
    floods,
    hangs,
    ranks,
    sends_nonsense,
    talks_for_ever,
    tells_an_error_in_mid_stream,
)
from tests.gateway.engine import FixedBackend, a_backend, a_model
from tests.gateway.serving import Client, client_of, serving

CHAT: dict[str, Any] = {"messages": [{"role": "user", "content": "hi"}]}
MESSAGE: dict[str, Any] = CHAT | {"max_tokens": 5}
RESPONSE: dict[str, Any] = {"input": "hi"}


@pytest.mark.parametrize("behaviour", [dies_before_its_head, dies_after_its_head])
@pytest.mark.parametrize("stream", [True, False])
async def test_an_engine_that_dies_before_its_first_byte_is_a_502_with_the_reason(behaviour, stream):
    async with broken_engine(behaviour) as engine, client_of([a_backend(engine.endpoint)]) as client:
        status, answer = await client.post("/v1/chat/completions", CHAT | {"stream": stream})
    assert status == 502
    assert answer["error"]["code"] == "engine_failed"
    assert "killed (signal 9)" in answer["error"]["message"]


async def test_an_engine_that_nobody_listens_for_is_a_502():
    async with broken_engine(hangs) as engine:
        gone = engine.endpoint
    async with client_of([a_backend(gone)]) as client:
        status, answer = await client.post("/v1/embeddings", {"input": "x"})
        assert (status, answer["error"]["code"]) == (502, "engine_failed")
        status, answer = await client.post("/v1/messages", MESSAGE)
        assert (status, answer["error"]["type"]) == (502, "api_error")


@pytest.mark.parametrize("behaviour", [dies_in_mid_stream, ends_without_an_end])
@pytest.mark.parametrize("options", [{}, {"n": 2}])
async def test_a_chat_stream_that_breaks_ends_with_an_error_and_without_done(behaviour, options):
    async with broken_engine(behaviour) as engine, client_of([a_backend(engine.endpoint)]) as client:
        events = await client.stream("/v1/chat/completions", CHAT | {"stream": True} | options)
    assert b"word" in events[0]
    assert "killed (signal 9)" in json.loads(events[-1])["error"]["message"]
    assert b"[DONE]" not in events


async def test_a_message_stream_that_breaks_ends_with_anthropics_error():
    async with broken_engine(dies_in_mid_stream) as engine, client_of([a_backend(engine.endpoint)]) as client:
        events = await client.stream("/v1/messages", MESSAGE | {"stream": True})
    kinds = [json.loads(event)["type"] for event in events]
    assert kinds == ["message_start", "content_block_start", "content_block_delta", "error"]
    assert json.loads(events[-1])["error"]["type"] == "api_error"


async def test_a_response_stream_that_breaks_ends_as_failed():
    async with broken_engine(dies_in_mid_stream) as engine, client_of([a_backend(engine.endpoint)]) as client:
        events = await client.stream("/v1/responses", RESPONSE | {"stream": True})
    error, failed = (json.loads(event) for event in events[-2:])
    assert error["type"] == "error" and "killed" in error["message"]
    assert failed["type"] == "response.failed" and failed["response"]["status"] == "failed"


@pytest.mark.parametrize("options", [{}, {"n": 2}])
async def test_an_error_that_the_engine_tells_in_its_stream_is_told_once(options):
    async with (
        broken_engine(tells_an_error_in_mid_stream) as engine,
        client_of([a_backend(engine.endpoint)]) as client,
    ):
        body = CHAT | {"stream": True} | options
        async with client.session.post(f"{client.url}/v1/chat/completions", json=body) as response:
            text = await response.read()
        status, answer = await client.post("/v1/chat/completions", CHAT)
    assert text.count(b"the slot burnt") == 1  # as an event, or whole where nothing had been sent yet
    assert text.count(b'"error"') == 1 and response.status == (200 if b"word" in text else 502)
    assert status == 502 and "the slot burnt" in answer["error"]["message"]


async def test_an_engine_that_talks_nonsense_is_a_502():
    async with broken_engine(sends_nonsense) as engine, client_of([a_backend(engine.endpoint)]) as client:
        status, answer = await client.post("/v1/chat/completions", CHAT)
    assert status == 502 and "not JSON" in answer["error"]["message"]


@pytest.mark.parametrize("behaviour", [hangs, talks_for_ever])
@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/messages", "/v1/responses"])
@pytest.mark.parametrize("stream", [True, False])
async def test_a_client_that_leaves_cancels_the_generation(behaviour, path, stream):
    async with broken_engine(behaviour) as engine, client_of([a_backend(engine.endpoint)]) as client:
        body = {"stream": stream} | (RESPONSE if path == "/v1/responses" else MESSAGE)
        await _leave_once_asked(client, path, body, engine.asked)
        async with asyncio.timeout(1):
            await engine.left.wait()


async def _leave_once_asked(client: Client, path: str, body: Any, asked: asyncio.Event) -> None:
    async with asyncio.TaskGroup() as tasks:
        request = tasks.create_task(client.post(path, body))
        await asyncio.wait_for(asked.wait(), 5)
        request.cancel()


async def test_requests_beyond_the_slots_wait_and_are_seen_waiting():
    changed = asyncio.Event()
    async with (
        broken_engine(hangs) as engine,
        serving([a_backend(engine.endpoint, slots=1)], on_change=changed.set) as (gateway, url),
        aiohttp.ClientSession() as session,
        asyncio.TaskGroup() as tasks,
    ):

        async def until_queued(count: int) -> None:
            async with asyncio.timeout(5):
                while gateway.statistics().queued != count:
                    changed.clear()
                    await changed.wait()

        client = Client(url, session)
        first = tasks.create_task(client.post("/v1/chat/completions", CHAT))
        await asyncio.wait_for(engine.asked.wait(), 5)
        second = tasks.create_task(client.post("/v1/chat/completions", CHAT))
        await until_queued(1)
        assert gateway.statistics().in_flight == 1
        assert len(engine.bodies) == 1
        second.cancel()
        await until_queued(0)
        third = tasks.create_task(client.post("/v1/chat/completions", CHAT))
        await until_queued(1)
        engine.asked.clear()
        first.cancel()
        await asyncio.wait_for(engine.asked.wait(), 5)
        assert len(engine.bodies) == 2
        third.cancel()
    assert gateway.statistics().in_flight == 0


async def test_a_large_request_reaches_the_engine_whole():
    text = "x" * 3_000_000
    async with broken_engine(answers_well) as engine, client_of([a_backend(engine.endpoint)]) as client:
        engine_body = CHAT | {"messages": [{"role": "user", "content": text}]}
        async with client.session.post(
            f"{client.url}/v1/chat/completions", data=io.BytesIO(json.dumps(engine_body).encode())
        ) as response:
            assert response.status == 200, await response.text()
    assert engine.bodies[0]["messages"][0]["content"] == text


async def test_nothing_of_the_clients_headers_reaches_the_engine():
    strange = {"X-Conversation-Id": "7", "X-Tool-Cwd": "/", "Cookie": "a=b", "Authorization": "Bearer mine"}
    async with broken_engine(answers_well) as engine, client_of([a_backend(engine.endpoint)]) as client:
        await client.post("/v1/chat/completions", CHAT, headers=strange)
    (headers,) = engine.headers
    assert not {"X-Conversation-Id", "X-Tool-Cwd", "Cookie"} & set(headers)
    assert headers["Authorization"] == "Bearer k"


async def test_the_engine_is_always_asked_for_a_stream():
    async with broken_engine(answers_well) as engine, client_of([a_backend(engine.endpoint)]) as client:
        for path, body in (
            ("/v1/chat/completions", CHAT),
            ("/v1/completions", {"prompt": "x"}),
            ("/v1/responses", RESPONSE),
            ("/v1/messages", MESSAGE),
        ):
            status, _ = await client.post(path, body)
            assert status == 200
    assert [body["stream"] for body in engine.bodies] == [True] * 4


async def test_an_untouched_stream_arrives_byte_for_byte_and_is_counted():
    async with (
        broken_engine(answers_well) as engine,
        serving([a_backend(engine.endpoint)]) as (gateway, url),
        aiohttp.ClientSession() as session,
        session.post(f"{url}/v1/chat/completions", json=CHAT | {"stream": True}) as response,
    ):
        got = await response.read()
    assert got == CHUNK + LAST
    (model,) = gateway.statistics().models
    assert (model.requests, model.prompt_tokens, model.completion_tokens) == (1, 7, 5)


@pytest.mark.parametrize(
    ("condition", "status", "says"),
    [
        (Loading(0.42), 503, "42%"),
        (Restarting("out of memory", 2, 7), 503, "out of memory"),
        (Failed("no such file"), 502, "no such file"),
    ],
)
async def test_a_model_that_is_not_ready_says_why(condition, status, says):
    backend = FixedBackend(a_model(), condition)
    async with (
        client_of([backend]) as client,
        client.session.post(f"{client.url}/v1/chat/completions", json=CHAT) as response,
    ):
        answer = await response.json()
        retry_after = response.headers.get("Retry-After")
    assert response.status == status
    assert says in answer["error"]["message"]
    assert (retry_after is not None) == (status == 503)


async def test_a_body_beyond_the_bound_is_refused_while_it_is_read():
    async def endless():
        while True:
            yield b" " * 1_000_000

    async with client_of([]) as client:
        too_much = io.BytesIO(b" " * (REQUEST_BODY_BYTES_MAX + 1))
        async with client.session.post(f"{client.url}/v1/chat/completions", data=too_much) as response:
            assert response.status == 413
            assert (await response.json())["error"]["code"] == "body_too_large"
        async with client.session.post(f"{client.url}/v1/messages", data=endless()) as response:
            assert response.status == 413
            assert (await response.json())["error"]["type"] == "request_too_large"


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"7", b'"x"', b"\xff\xfe", b'{"a":NaN}', b"[" * 100_000])
async def test_a_body_that_is_no_json_object_is_a_400(body):
    async with client_of([]) as client:
        for path in ("/v1/chat/completions", "/v1/embeddings", "/tokenize", "/v1/messages"):
            status, answer = await client.post(path, body)
            assert status == 400
            assert "Send a JSON object" in answer["error"]["message"]


async def test_a_client_that_takes_nothing_is_given_up_and_frees_its_place():
    changed = asyncio.Event()
    async with (
        broken_engine(floods) as engine,
        serving([a_backend(engine.endpoint)], on_change=changed.set, stall_seconds_max=0.05) as (
            gateway,
            url,
        ),
    ):
        host, port = url.removeprefix("http://").split(":")
        _, writer = await asyncio.open_connection(host, int(port), limit=1)
        body = json.dumps(CHAT | {"stream": True}).encode()
        head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: {host}\r\nContent-Length: {len(body)}\r\n\r\n"
        writer.write(head.encode() + body)
        async with asyncio.timeout(10):
            while gateway.statistics().requests == 0:
                changed.clear()
                await changed.wait()
        assert gateway.statistics().in_flight == 0
        writer.close()


async def test_a_reranker_is_asked_and_answers_under_the_name_it_has_here():
    async with (
        broken_engine(ranks) as engine,
        client_of([a_backend(engine.endpoint, pooling="rank")]) as client,
    ):
        for path in ("/v1/rerank", "/rerank"):
            status, answer = await client.post(path, {"query": "a", "documents": ["b"]})
            assert status == 200
            assert answer["model"] == "SmolLM2-135M-Instruct"
            assert answer["results"] == [{"model": "kept"}]
