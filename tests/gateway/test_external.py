"""Backends that speak OpenAI's API but are no llama-server: asked with as little change as possible."""

import json
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest
from aiohttp import web

from mesh_llm.core.serving import Endpoint
from mesh_llm.runtime.listening import LOOPBACK, port_of, reserve
from mesh_llm.runtime.tasks import beside
from mesh_llm.runtime.web import serve
from tests.gateway.engine import a_backend
from tests.gateway.serving import client_of

CHUNK = {
    "id": "c",
    "object": "chat.completion.chunk",
    "model": "theirs",
    "choices": [{"index": 0, "delta": {"content": "word"}, "finish_reason": "stop"}],
    "usage": {"prompt_tokens": 3, "completion_tokens": 9},
    "vendor": {"cost": 1},
}
WHOLE = {"id": "c", "model": "theirs", "usage": {"prompt_tokens": 3, "completion_tokens": 9}, "vendor": 7}
EVENTS = b"data: " + json.dumps(CHUNK).encode() + b"\r\n\r\ndata: [DONE]\r\n\r\n"
HI = {"messages": [{"role": "user", "content": "hi"}]}
LLAMA_ONLY = {"return_progress", "verbose", "thinking_budget_tokens", "id_slot", "cache_prompt"}


@dataclass
class External:
    endpoint: Endpoint
    asked: list[tuple[str, Any]] = field(default_factory=list)
    authorization: list[str | None] = field(default_factory=list)

    async def answer(self, request: web.Request) -> web.StreamResponse:
        body = await request.json()
        self.asked.append((request.path, body))
        self.authorization.append(request.headers.get("Authorization"))
        if not body.get("stream"):
            return web.json_response(WHOLE)
        return web.Response(body=EVENTS, content_type="text/event-stream")


@asynccontextmanager
async def external(key: str = ""):
    listener = reserve(LOOPBACK, 0, "--port")
    listener.listen()
    server = External(Endpoint(f"http://{LOOPBACK}:{port_of(listener)}", key, dialect="openai"))
    application = web.Application()
    application.router.add_route("*", "/{path:.*}", server.answer)
    async with beside(server=serve(application, listener)):
        yield server


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/completions", "/v1/embeddings", "/v1/rerank"])
async def test_a_body_and_its_whole_answer_pass_as_they_are(path):
    body = HI | {"model": "THEIRS", "vendor_field": {"x": [1]}, "n": 2, "dimensions": 3, "functions": []}
    pooling = {"/v1/embeddings": "mean", "/v1/rerank": "rank"}.get(path)
    async with (
        external() as server,
        client_of([a_backend(server.endpoint, name="theirs", pooling=pooling)]) as client,
    ):
        assert await client.post(path, body) == (200, WHOLE)
    assert server.asked == [(path, body | {"model": "theirs"})]
    assert server.authorization == [None]


async def test_a_stream_passes_as_it_is_and_is_counted():
    body = HI | {"model": "theirs", "stream": True, "tools": [{"type": "vendor"}], "tool_choice": "required"}
    async with (
        external("s3") as server,
        client_of([a_backend(server.endpoint, name="theirs")]) as client,
    ):
        async with client.session.post(f"{client.url}/v1/chat/completions", json=body) as response:
            assert await response.read() == EVENTS
        async with client.session.get(f"{client.url}/metrics") as response:
            assert 'mesh_llm_completion_tokens_total{model="theirs"} 9.0' in await response.text()
    assert server.asked == [("/v1/chat/completions", body)]
    assert server.authorization == ["Bearer s3"]


@pytest.mark.parametrize("stream", [True, False])
async def test_other_dialects_are_translated_without_what_only_llama_server_knows(stream):
    tool = {"name": "look", "input_schema": {"type": "object"}}
    message = HI | {
        "max_tokens": 5,
        "stop_sequences": ["x"],
        "thinking": {"type": "enabled", "budget_tokens": 9},
        "tools": [tool],
        "tool_choice": {"type": "any"},
        "stream": stream,
    }
    async with (
        external() as server,
        client_of([a_backend(server.endpoint, name="theirs")]) as client,
    ):
        for path, body in (("/v1/messages", message), ("/v1/responses", {"input": "hi", "stream": stream})):
            async with client.session.post(client.url + path, json=body) as response:
                assert response.status == 200 and b"word" in await response.read()
    (first, chat), (second, _) = server.asked
    assert first == second == "/v1/chat/completions"
    for _, body in server.asked:
        assert body["model"] == "theirs" and not LLAMA_ONLY & set(body)
    assert chat["tool_choice"] == "required" and chat["tools"][0]["function"]["name"] == "look"


@pytest.mark.parametrize("path", ["/tokenize", "/detokenize", "/apply-template", "/v1/messages/count_tokens"])
async def test_what_only_llama_server_offers_is_refused(path):
    async with (
        external() as server,
        client_of([a_backend(server.endpoint, name="theirs")]) as client,
    ):
        status, answer = await client.post(path, HI | {"content": "x", "tokens": [1]})
    assert status == 400 and path in answer["error"]["message"]
    assert server.asked == []
