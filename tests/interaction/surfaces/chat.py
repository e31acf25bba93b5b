"""Cells of `/v1/chat/completions`, through the `openai` package."""

import json
from typing import Any

from tests.interaction.nodes import MODEL
from tests.interaction.surfaces.cells import BAD, Cell, bad, table_of
from tests.interaction.surfaces.outcomes import Refused, without_counts
from tests.interaction.surfaces.placements import CONTEXT, Clients

SAID = "Repeat after me: one two three four five six seven eight."
"""The model is sure of each token of its answer: where two are all but equally likely, even llama-server
answers otherwise when a part of the prompt is cached."""

SUM = "What is two plus two?"
"""It is sure of this one where tools are described too."""

AS_JSON: list[Any] = [{"role": "user", "content": 'Write this JSON again:\n{\n  "colour": "green"\n}'}]
"""Sure of each token, of the white space too, and of the end: llama-server lets blanks follow."""

HI: list[Any] = [{"role": "user", "content": SAID}]
LONG: list[Any] = [{"role": "user", "content": "hello world " * CONTEXT}]
COLOUR = {
    "type": "object",
    "properties": {"colour": {"enum": ["red", "green"]}},
    "required": ["colour"],
    "additionalProperties": False,
}
TOOLS: list[Any] = [
    {
        "type": "function",
        "function": {
            "name": name,
            "description": f"Get the {name}",
            "parameters": {
                "type": "object",
                "properties": {"city": {"enum": ["Paris", "Rome"]}},
                "required": ["city"],
                "additionalProperties": False,
            },
        },
    }
    for name in ("weather", "time")
]
NAMED = {"type": "function", "function": {"name": "time"}}
CALLED: list[Any] = [
    {"role": "user", "content": "What is the weather in Paris?"},
    {
        "role": "assistant",
        "content": None,
        "tool_calls": [
            {"id": "c1", "type": "function", "function": {"name": "weather", "arguments": '{"city":"Paris"}'}}
        ],
    },
    {"role": "tool", "tool_call_id": "c1", "content": "It rains frogs."},
]
CALL_GRAMMAR = 'root ::= "{\\"name\\": \\"weather\\", \\"arguments\\": {\\"city\\": \\"Rome\\"}}"'

CELLS: list[Cell] = []
cell = table_of(CELLS, "chat")


def schema_of(schema: Any) -> Any:
    return {"type": "json_schema", "json_schema": {"name": "answer", "strict": True, "schema": schema}}


def request(fields: Any) -> Any:
    """Nothing cached: cells that were computed beside other rows move logits a little."""
    more = {"cache_prompt": False} | fields.get("extra_body", {})
    given = {"model": MODEL, "messages": HI, "max_tokens": 8, "temperature": 0} | fields
    return given | {"extra_body": more}


async def ask(clients: Clients, **fields: Any) -> Any:
    given = request(fields)
    answer = await clients.ai.chat.completions.create(**given)
    return answer.model_dump(mode="json", exclude_unset=True)


async def stream(clients: Clients, **fields: Any) -> Any:
    """What a client puts together, and which fields the chunks had."""
    given = request(fields)
    chunks = await clients.ai.chat.completions.create(**given, stream=True)
    return folded([chunk.model_dump(mode="json", exclude_unset=True) async for chunk in chunks])


def folded(chunks: list[Any]) -> Any:
    told: dict[str, Any] = {"fields": set(), "choices": {}, "usage": []}
    for chunk in chunks:
        told["fields"] |= {*chunk, *(f"delta.{name}" for each in chunk["choices"] for name in each["delta"])}
        if chunk.get("usage"):
            told["usage"].append(chunk["usage"])
        for choice in chunk["choices"]:
            said = told["choices"].setdefault(
                str(choice["index"]), {"text": "", "calls": "", "end": None, "scores": []}
            )
            said["text"] += choice["delta"].get("content") or ""
            for piece in choice["delta"].get("tool_calls") or []:
                function = piece["function"]
                said["calls"] += (function.get("name") or "") + (function.get("arguments") or "")
            said["end"] = choice.get("finish_reason") or said["end"]
            said["scores"] += (choice.get("logprobs") or {}).get("content") or []
    return told | {"fields": sorted(told["fields"])}


def message(answer: Any) -> Any:
    return answer["choices"][0]["message"]


def call_in(answer: Any) -> tuple[str, Any]:
    (call,) = message(answer)["tool_calls"]
    assert answer["choices"][0]["finish_reason"] == "tool_calls"
    return call["function"]["name"], json.loads(call["function"]["arguments"])


@cell("plain")
async def _(clients: Clients) -> Any:
    answer = await ask(clients)
    assert message(answer)["content"] and answer["model"] == MODEL
    assert answer["usage"]["completion_tokens"] <= 8
    return answer


@cell("system message and parts")
async def _(clients: Clients) -> Any:
    parts = [{"type": "text", "text": text} for text in SAID.split(": ")]
    return await ask(
        clients, messages=[{"role": "system", "content": "Be brief."}, {"role": "user", "content": parts}]
    )


@cell("stream")
async def _(clients: Clients) -> Any:
    told = await stream(clients)
    assert told["choices"]["0"]["text"] and not told["usage"]
    return told


@cell("stream with usage")
async def _(clients: Clients) -> Any:
    told = await stream(clients, stream_options={"include_usage": True})
    assert len(told["usage"]) == 1
    return told


@cell("stop")
async def _(clients: Clients) -> Any:
    answer = await ask(clients, stop=["nine", "four"])
    assert answer["choices"][0]["finish_reason"] == "stop"
    assert message(answer)["content"] == "One two three "
    return answer


@cell("stop in a stream")
async def _(clients: Clients) -> Any:
    return await stream(clients, stop=["ur fi", "xyz"])


@cell("seed")
async def _(clients: Clients) -> Any:
    fields: Any = {"temperature": 1.2, "seed": 7}
    first = await ask(clients, **fields)
    assert message(await ask(clients, **fields)) == message(first)
    return first


@cell("logprobs")
async def _(clients: Clients) -> Any:
    answer = await ask(clients, logprobs=True, top_logprobs=2, max_tokens=4)
    tokens = answer["choices"][0]["logprobs"]["content"]
    assert all(token["logprob"] <= 0 and len(token["top_logprobs"]) == 2 for token in tokens)
    assert "".join(token["token"] for token in tokens) == message(answer)["content"]
    return answer


@cell("logprobs without rivals")
async def _(clients: Clients) -> Any:
    return await ask(clients, logprobs=True, max_tokens=3)


@cell("logprobs in a stream")
async def _(clients: Clients) -> Any:
    told = await stream(clients, logprobs=True, top_logprobs=2, max_tokens=4)
    assert told["choices"]["0"]["scores"]
    return told


@cell("n")
async def _(clients: Clients) -> Any:
    answer = await ask(clients, n=2, max_tokens=4, extra_body={"ignore_eos": True})
    assert [choice["index"] for choice in answer["choices"]] == [0, 1]
    assert answer["usage"]["completion_tokens"] == 8
    return answer


@cell("n in a stream")
async def _(clients: Clients) -> Any:
    told = await stream(clients, n=2, max_tokens=4, stream_options={"include_usage": True})
    assert sorted(told["choices"]) == ["0", "1"] and len(told["usage"]) == 1
    return told


@cell("json_object")
async def _(clients: Clients) -> Any:
    answer = await ask(clients, messages=AS_JSON, response_format={"type": "json_object"}, max_tokens=40)
    assert json.loads(message(answer)["content"]) == {"colour": "green"}
    return answer


@cell("json_schema")
async def _(clients: Clients) -> Any:
    answer = await ask(clients, messages=AS_JSON, response_format=schema_of(COLOUR), max_tokens=40)
    assert json.loads(message(answer)["content"])["colour"] in ("red", "green")
    return answer


@cell("json_schema in a stream")
async def _(clients: Clients) -> Any:
    told = await stream(clients, messages=AS_JSON, response_format=schema_of(COLOUR), max_tokens=40)
    assert json.loads(told["choices"]["0"]["text"])["colour"] in ("red", "green")
    return told


@cell("grammar")
async def _(clients: Clients) -> Any:
    answer = await ask(clients, extra_body={"grammar": 'root ::= ("yes" | "no") " sir"'})
    assert message(answer)["content"] in ("yes sir", "no sir")
    return answer


@cell("tools none")
async def _(clients: Clients) -> Any:
    answer = await ask(clients, tools=TOOLS, tool_choice="none")
    assert not message(answer).get("tool_calls")
    return answer


@cell("tools auto")
async def _(clients: Clients) -> Any:
    answer = await ask(clients, tools=TOOLS, max_tokens=40, extra_body={"grammar": CALL_GRAMMAR})
    assert call_in(answer) == ("weather", {"city": "Rome"})
    return answer


@cell("tools auto without a call")
async def _(clients: Clients) -> Any:
    asked: Any = [{"role": "user", "content": SUM}]
    return await ask(clients, messages=asked, tools=TOOLS, tool_choice="auto", max_tokens=6)


@cell("tools required")
async def _(clients: Clients) -> Any:
    answer = await ask(clients, tools=TOOLS, tool_choice="required", max_tokens=60)
    name, arguments = call_in(answer)
    assert name in ("weather", "time") and arguments["city"] in ("Paris", "Rome")
    return without_counts(answer)


@cell("tools named")
async def _(clients: Clients) -> Any:
    answer = await ask(clients, tools=TOOLS, tool_choice=NAMED, max_tokens=60)
    assert call_in(answer)[0] == "time"
    return without_counts(answer)


@cell("tools named in a stream")
async def _(clients: Clients) -> Any:
    told = await stream(clients, tools=TOOLS, tool_choice=NAMED, max_tokens=60)
    assert told["choices"]["0"]["calls"].startswith("time{")
    assert told["choices"]["0"]["end"] == "tool_calls"
    return told


@cell("tool results")
async def _(clients: Clients) -> Any:
    return await ask(clients, messages=CALLED, tools=TOOLS, max_tokens=6)


@cell("logit_bias")
async def _(clients: Clients) -> Any:
    usual = await ask(clients, max_tokens=1)
    banned = message(usual)["content"]
    answer = await ask(clients, max_tokens=4, logit_bias={banned: -100})
    assert not message(answer)["content"].startswith(banned)
    return answer


@cell("penalties")
async def _(clients: Clients) -> Any:
    return await ask(clients, frequency_penalty=0.7, presence_penalty=0.4, extra_body={"repeat_penalty": 1.2})


@cell("llama.cpp's samplers")
async def _(clients: Clients) -> Any:
    more = {
        "dry_multiplier": 0.8,
        "typical_p": 0.9,
        "min_p": 0.02,
        "samplers": ["dry", "top_k", "typical_p", "min_p", "temperature"],
    }
    return await ask(clients, temperature=0.8, seed=3, extra_body=more)


@cell("mirostat")
async def _(clients: Clients) -> Any:
    return await ask(clients, temperature=0.8, seed=3, extra_body={"mirostat": 2, "mirostat_tau": 4})


@cell("prefill")
async def _(clients: Clients) -> Any:
    answer = await ask(clients, messages=[*HI, {"role": "assistant", "content": "One two three"}])
    assert message(answer)["content"]
    return answer


@cell("max_completion_tokens")
async def _(clients: Clients) -> Any:
    answer = await ask(clients, max_tokens=None, max_completion_tokens=2, extra_body={"ignore_eos": True})
    assert answer["usage"]["completion_tokens"] == 2
    assert answer["choices"][0]["finish_reason"] == "length"
    return answer


@cell("unknown model", refused=Refused(404, code="model_not_found", parameter="model"))
async def _(clients: Clients) -> Any:
    return await ask(clients, model="gpt-9")


@cell("beyond the context", refused=bad("context_length_exceeded"))
async def _(clients: Clients) -> Any:
    return await ask(clients, messages=LONG)


@cell("no messages", refused=bad("invalid_type", "messages"))
async def _(clients: Clients) -> Any:
    return await ask(clients, messages=[])


@cell("unknown role", refused=bad("invalid_type", "messages[0].role"))
async def _(clients: Clients) -> Any:
    return await ask(clients, messages=[{"role": "wizard", "content": "x"}])


@cell("picture", refused=bad("unsupported_content", "messages[0].content[0]"))
async def _(clients: Clients) -> Any:
    part = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}
    return await ask(clients, messages=[{"role": "user", "content": [part]}])


@cell("temperature in words", refused=bad("invalid_type", "temperature"))
async def _(clients: Clients) -> Any:
    return await ask(clients, temperature="hot")


@cell("too many choices", refused=BAD)
async def _(clients: Clients) -> Any:
    return await ask(clients, n=99)


@cell("broken schema", refused=BAD)
async def _(clients: Clients) -> Any:
    return await ask(clients, response_format=schema_of({"type": "objekt"}))


@cell("broken grammar", refused=BAD)
async def _(clients: Clients) -> Any:
    return await ask(clients, extra_body={"grammar": "root ::= ("})


@cell("unknown response_format", refused=BAD)
async def _(clients: Clients) -> Any:
    return await ask(clients, response_format={"type": "yaml"})


@cell("unknown tool", refused=bad("invalid_value", "tool_choice"))
async def _(clients: Clients) -> Any:
    unknown = {"type": "function", "function": {"name": "leap"}}
    return await ask(clients, tools=TOOLS, tool_choice=unknown)


@cell("logprobs with tools", refused=bad("unsupported_parameter", "logprobs"))
async def _(clients: Clients) -> Any:
    return await ask(clients, tools=TOOLS, logprobs=True)
