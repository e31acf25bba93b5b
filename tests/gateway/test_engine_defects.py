"""What a real llama-server gets wrong, and what the gateway makes of it."""

import asyncio
import json
from typing import Any

import aiohttp
import pytest

from tests.gateway.engine import Engine, a_backend
from tests.gateway.serving import Client, client_of, serving

pytestmark = pytest.mark.real

HI: list[Any] = [{"role": "user", "content": "Hi"}]
CHAT: dict[str, Any] = {"messages": HI, "max_tokens": 2}
PIXEL = (
    "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGA"
    "WjR9awAAAABJRU5ErkJggg=="
)
TOOL: dict[str, Any] = {
    "type": "function",
    "function": {"name": "look", "parameters": {"type": "object", "properties": {}}},
}


@pytest.mark.parametrize(
    ("path", "body", "parameter"),
    [
        ("/v1/chat/completions", {"messages": [{"role": "wizard", "content": "x"}]}, "messages[0].role"),
        ("/v1/chat/completions", {"messages": [{"content": "x"}]}, "messages[0].role"),
        ("/v1/chat/completions", {"messages": [{"role": "user"}]}, "messages[0].content"),
        ("/v1/chat/completions", {"messages": []}, "messages"),
        ("/v1/chat/completions", {}, "messages"),
        ("/v1/chat/completions", CHAT | {"stream": "yes"}, "stream"),
        ("/v1/chat/completions", CHAT | {"model": 7}, "model"),
        ("/v1/chat/completions", CHAT | {"n": 0}, "n"),
        ("/v1/chat/completions", CHAT | {"stop": 7}, "stop"),
        ("/v1/chat/completions", CHAT | {"id_slot": 3}, "id_slot"),
        ("/v1/chat/completions", CHAT | {"lora": [{"id": 0, "scale": 1}]}, "lora"),
        ("/v1/chat/completions", CHAT | {"functions": [{"name": "f"}]}, "functions"),
        ("/v1/chat/completions", CHAT | {"tools": [TOOL], "tool_choice": "maybe"}, "tool_choice"),
        ("/v1/chat/completions", CHAT | {"tool_choice": "required"}, "tool_choice"),
        (
            "/v1/chat/completions",
            CHAT | {"tools": [TOOL], "tool_choice": {"type": "function", "function": {"name": "leap"}}},
            "tool_choice",
        ),
        ("/v1/chat/completions", CHAT | {"tools": [{"type": "custom"}]}, "tools[0].type"),
        ("/v1/completions", {"prompt": "x", "suffix": "y"}, "suffix"),
        ("/v1/completions", {"prompt": "x", "best_of": 3}, "best_of"),
        ("/v1/completions", {"prompt": "x", "echo": True, "logprobs": 1}, "echo"),
        ("/v1/completions", {"prompt": [1, 2], "echo": True}, "echo"),
        ("/v1/completions", {"prompt": {"a": 1}}, "prompt"),
        ("/v1/completions", {"prompt": ["a", [1], {}]}, "prompt[2]"),
        ("/v1/completions", {}, "prompt"),
        ("/v1/embeddings", {"input": "x", "dimensions": 7}, "dimensions"),
        ("/v1/embeddings", {"input": "x", "encoding_format": "hex"}, "encoding_format"),
        ("/v1/embeddings", {"input": []}, "input"),
        ("/v1/embeddings", {}, "input"),
        ("/v1/rerank", {"query": "x", "documents": ["y"]}, "model"),
        ("/v1/responses", {"input": "x", "previous_response_id": "resp_1"}, "previous_response_id"),
        ("/v1/responses", {"input": 7}, "input"),
        ("/v1/responses", {"input": "x", "tools": [{"type": "web_search"}]}, "tools[0].type"),
        ("/v1/responses", {"input": [{"type": "item_reference", "id": "x"}]}, "input[0].type"),
        ("/tokenize", {"content": 5}, "content"),
        ("/detokenize", {"tokens": [999_999]}, "tokens[0]"),
        ("/detokenize", {"tokens": "x"}, "tokens"),
    ],
)
async def test_what_the_engine_would_ignore_or_choke_on_is_refused(
    client: Client, path: str, body: Any, parameter: str
) -> None:
    status, answer = await client.post(path, body)
    assert status == 400
    assert answer["error"]["param"] == parameter
    assert answer["error"]["type"] == "invalid_request_error"


@pytest.mark.parametrize(
    "part", [{"type": "image_url", "image_url": {"url": PIXEL}}, {"type": "input_audio", "input_audio": {}}]
)
async def test_an_image_without_a_projector_is_a_400(client: Client, part: Any) -> None:
    body = {"messages": [{"role": "user", "content": [{"type": "text", "text": "Look"}, part]}]}
    status, answer = await client.post("/v1/chat/completions", body)
    assert (status, answer["error"]["code"]) == (400, "unsupported_content")


async def test_an_image_that_only_the_engine_knows_it_cannot_read_is_a_400(engine: Engine) -> None:
    body = {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": PIXEL}}]}]}
    async with client_of([a_backend(engine.endpoint, vision=True)]) as client:
        status, answer = await client.post("/v1/chat/completions", body)
    assert status == 400 and "not supported" in answer["error"]["message"]


@pytest.mark.parametrize(
    "wrong",
    [
        {"max_tokens": "two"},
        {"temperature": "hot"},
        {"response_format": {"type": "yaml"}},
        {"response_format": {"type": "json_schema", "json_schema": {"schema": {"type": "objekt"}}}},
        {"n": 99},
        {"grammar": "root ::= ("},
    ],
)
async def test_the_engines_own_refusals_come_through_as_400(client: Client, wrong: Any) -> None:
    status, answer = await client.post("/v1/chat/completions", CHAT | wrong)
    assert status == 400
    assert answer["error"]["type"] == "invalid_request_error" and answer["error"]["message"]


async def test_fields_left_null_are_as_good_as_absent(client: Client) -> None:
    names = (
        "temperature top_p stop seed n tools tool_choice logprobs top_logprobs response_format stream id_slot"
    )
    status, answer = await client.post("/v1/chat/completions", CHAT | dict.fromkeys(names.split()))
    assert status == 200 and answer["choices"][0]["message"]["content"]


async def test_an_embedding_input_beyond_the_context_is_a_400_with_the_numbers(client: Client) -> None:
    status, answer = await client.post("/v1/embeddings", {"input": "hello world " * 5000})
    assert (status, answer["error"]["code"]) == (400, "context_length_exceeded")
    assert answer["error"]["n_ctx"] == 8192


async def test_an_overflow_keeps_its_numbers_for_anthropic_clients(client: Client) -> None:
    body = {"max_tokens": 2, "messages": [{"role": "user", "content": "hello world " * 5000}]}
    status, answer = await client.post("/v1/messages", body)
    assert (status, answer["error"]["type"]) == (400, "invalid_request_error")
    assert answer["error"]["n_prompt_tokens"] > 8192


@pytest.mark.parametrize("choice", ["required", {"type": "function", "function": {"name": "find"}}])
@pytest.mark.parametrize("stream", [True, False])
async def test_an_enforced_call_obeys_a_schema_with_references(
    client: Client, choice: Any, stream: bool
) -> None:
    parameters = {
        "type": "object",
        "properties": {"where": {"$ref": "#/$defs/Place"}},
        "required": ["where"],
        "additionalProperties": False,
        "$defs": {
            "Place": {
                "type": "object",
                "properties": {"city": {"$ref": "#/$defs/City"}},
                "required": ["city"],
                "additionalProperties": False,
            },
            "City": {"enum": ["Rome", "Oslo"]},
        },
    }
    tool = {"type": "function", "function": {"name": "find", "parameters": parameters}}
    body = {
        "messages": HI,
        "tools": [tool],
        "tool_choice": choice,
        "max_tokens": 200,
        "n": 2,
        "stream": stream,
    }
    calls = await _calls_of(client, body)
    assert sorted(calls) == [0, 1]
    for name, arguments in calls.values():
        assert name == "find"
        assert json.loads(arguments)["where"]["city"] in ("Rome", "Oslo")


async def _calls_of(client: Client, body: Any) -> dict[int, tuple[str, str]]:
    """Name and arguments of each choice's call."""
    if not body["stream"]:
        status, answer = await client.post("/v1/chat/completions", body)
        assert status == 200, answer
        functions = [choice["message"]["tool_calls"][0]["function"] for choice in answer["choices"]]
        return {index: (one["name"], one["arguments"]) for index, one in enumerate(functions)}
    calls: dict[int, tuple[str, str]] = {}
    for event in (await client.stream("/v1/chat/completions", body))[:-1]:
        for choice in json.loads(event)["choices"]:
            for piece in choice["delta"].get("tool_calls", []):
                name, arguments = calls.get(choice["index"], ("", ""))
                function = piece["function"]
                calls[choice["index"]] = (name + function.get("name", ""), arguments + function["arguments"])
    return calls


async def test_several_prompts_stream_without_the_engines_null_event(client: Client) -> None:
    body = {
        "prompt": ["a b", "c"],
        "max_tokens": 2,
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    events = await client.stream("/v1/completions", body | {"ignore_eos": True})
    assert events[-1] == b"[DONE]"
    chunks = [json.loads(event) for event in events[:-1]]
    assert all(isinstance(chunk, dict) for chunk in chunks)
    usages = [chunk["usage"] for chunk in chunks if chunk.get("usage")]
    assert [(usage["prompt_tokens"], usage["completion_tokens"]) for usage in usages] == [(3, 4)]


async def test_tokens_there_and_back(client: Client) -> None:
    _, answer = await client.post("/tokenize", {"content": "Hi there"})
    assert await client.post("/detokenize", answer) == (200, {"content": "Hi there"})
    _, answer = await client.post("/apply-template", {"messages": HI})
    assert "<|im_start|>user\nHi<|im_end|>" in answer["prompt"]


async def test_answers_carry_the_name_as_served_here(engine: Engine) -> None:
    async with client_of([a_backend(engine.endpoint, name="another-name")]) as client:
        for path, body in (
            ("/v1/chat/completions", CHAT),
            ("/v1/completions", {"prompt": "x", "max_tokens": 1}),
            ("/v1/responses", {"input": "x", "max_output_tokens": 1}),
            ("/v1/messages", CHAT),
            ("/v1/embeddings", {"input": "x"}),
        ):
            _, answer = await client.post(path, body | {"model": "ANOTHER-name"})
            assert answer["model"] == "another-name"


@pytest.mark.parametrize("stream", [True, False])
async def test_a_client_that_leaves_frees_the_engine_within_a_second(engine: Engine, stream: bool) -> None:
    body = {"messages": HI, "max_tokens": 4000, "ignore_eos": True, "stream": stream}
    changed = asyncio.Event()
    async with (
        serving([a_backend(engine.endpoint)], on_change=changed.set) as (gateway, url),
        aiohttp.ClientSession() as session,
    ):
        async with asyncio.TaskGroup() as tasks:
            request = tasks.create_task(Client(url, session).post("/v1/chat/completions", body))
            async with asyncio.timeout(10):
                await changed.wait()
                while not await _slots_busy(session, engine):
                    pass
            request.cancel()
        async with asyncio.timeout(1):
            while await _slots_busy(session, engine):
                pass
        assert gateway.statistics().in_flight == 0


async def _slots_busy(session: aiohttp.ClientSession, engine: Engine) -> int:
    headers = {"Authorization": f"Bearer {engine.endpoint.api_key}"}
    async with session.get(f"{engine.endpoint.url}/slots", headers=headers) as response:
        return sum(slot["is_processing"] for slot in await response.json())
