"""Two gateways and a real engine: what a client gets through a tunnel is what the engine gives."""

import asyncio
import json
from typing import Any

import aiohttp
import pytest

from tests.gateway.broken_engine import broken_engine, hangs
from tests.gateway.engine import NAME, Engine, a_backend
from tests.gateway.meshes import asker, servers

HI: list[Any] = [{"role": "user", "content": "Hi"}]
BODIES: dict[str, Any] = {
    "/v1/chat/completions": {"messages": HI, "max_tokens": 9, "temperature": 0},
    "/v1/completions": {"prompt": "Once", "max_tokens": 9, "temperature": 0},
    "/v1/responses": {"input": "Hi", "max_output_tokens": 9, "temperature": 0},
    "/v1/messages": {"messages": HI, "max_tokens": 9, "temperature": 0},
}


@pytest.mark.real
@pytest.mark.parametrize("path", BODIES)
@pytest.mark.parametrize("stream", [True, False])
async def test_every_dialect_comes_through_and_is_counted(engine: Engine, path: str, stream: bool) -> None:
    async with (
        asyncio.timeout(60),
        servers(far=[a_backend(engine.endpoint)]) as nodes,
        asker(*nodes) as asked,
        asked.client.session.post(
            asked.client.url + path, json=BODIES[path] | {"stream": stream}
        ) as response,
    ):
        text = await response.read()
        assert response.status == 200, text
        (row,) = asked.gateway.statistics().models
    assert response.content_type == ("text/event-stream" if stream else "application/json")
    assert b"error" not in text.replace(b'"error":null', b"")
    assert (row.requests, row.prompt_tokens > 0, row.completion_tokens) == (1, True, 9)


@pytest.mark.real
async def test_an_embedding_comes_through_and_counts_its_tokens(engine: Engine) -> None:
    async with servers(far=[a_backend(engine.endpoint)]) as nodes, asker(*nodes) as asked:
        status, answer = await asked.client.post("/v1/embeddings", {"input": ["a b", "c"] * 200})
        assert (status, len(answer["data"]), answer["model"]) == (200, 400, NAME)
        (row,) = asked.gateway.statistics().models
        assert row.prompt_tokens == answer["usage"]["prompt_tokens"]
        _, tokens = await asked.client.post("/tokenize", {"content": "Hi there"})
        assert await asked.client.post("/detokenize", tokens) == (200, {"content": "Hi there"})
        status, counted = await asked.client.post("/v1/messages/count_tokens", {"messages": HI})
        assert status == 200 and counted["input_tokens"] > 5


@pytest.mark.real
async def test_each_token_leaves_as_it_comes(engine: Engine) -> None:
    """One event a frame: nothing waits for the next one."""
    body = {"messages": HI, "max_tokens": 12, "stream": True, "ignore_eos": True}
    async with (
        asyncio.timeout(60),
        servers(far=[a_backend(engine.endpoint)]) as nodes,
        asker(*nodes) as asked,
        asked.client.session.post(f"{asked.client.url}/v1/chat/completions", json=body) as response,
    ):
        first = await response.content.readany()
        assert not response.content.at_eof() and b"[DONE]" not in first
        assert (await response.content.read()).endswith(b"data: [DONE]\n\n")


@pytest.mark.real
@pytest.mark.parametrize("through", ["a tunnel", "one gateway"])
@pytest.mark.parametrize("stream", [True, False])
async def test_a_half_close_is_answered(engine: Engine, stream: bool, through: str) -> None:
    body = json.dumps(BODIES["/v1/chat/completions"] | {"stream": stream}).encode()
    head = b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n" % len(body)
    backends = [a_backend(engine.endpoint)]
    async with asyncio.timeout(60), servers(far=backends) as nodes:
        here = () if through == "a tunnel" else backends
        async with asker(*nodes, backends=here) as asked:
            reader, writer = await asyncio.open_connection("127.0.0.1", asked.client.port)
            writer.write(head + body)
            writer.write_eof()
            answer = await reader.read()
            writer.close()
    assert b"HTTP/1.1 200 OK" in answer
    assert (b"[DONE]" if stream else b'"finish_reason":"length"') in answer


@pytest.mark.parametrize("stream", [b"true", b"false"])
async def test_a_client_that_closes_during_a_long_prefill_frees_the_slot_of_the_other_node(stream):
    body = b'{"messages":[{"role":"user","content":"hi"}],"stream":%s}' % stream
    head = b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n" % len(body)
    async with (
        asyncio.timeout(10),
        broken_engine(hangs) as engine,
        servers(far=[a_backend(engine.endpoint)]) as nodes,
        asker(*nodes) as asked,
    ):
        _, writer = await asyncio.open_connection("127.0.0.1", asked.client.port)
        writer.write(head + body)
        await engine.asked.wait()
        writer.close()
        async with asyncio.timeout(2):
            await engine.left.wait()


async def test_no_header_of_the_clients_travels():
    async with (
        asyncio.timeout(10),
        broken_engine(hangs) as engine,
        servers(far=[a_backend(engine.endpoint)]) as nodes,
        asker(*nodes, api_key="secret-key") as asked,
        aiohttp.ClientSession(headers={"x-api-key": "secret-key", "Cookie": "a=secret"}) as session,
        asyncio.TaskGroup() as tasks,
    ):
        url, body = f"{asked.client.url}/v1/messages", {"messages": HI, "max_tokens": 5}
        request = tasks.create_task(session.post(url, json=body))
        await engine.asked.wait()
        request.cancel()
    ((_, mine, _),) = asked.mesh.streams
    assert b"/v1/messages" in mine.sent[0] and b"secret" not in b"".join(mine.sent)
