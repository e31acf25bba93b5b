"""Cells of `/v1/messages` and `/v1/messages/count_tokens`, through the `anthropic` package."""

import json
from typing import Any

from tests.interaction.nodes import MODEL
from tests.interaction.surfaces.cells import Cell, bad, table_of
from tests.interaction.surfaces.chat import AS_JSON, COLOUR, HI, SUM, TOOLS
from tests.interaction.surfaces.outcomes import without_counts
from tests.interaction.surfaces.placements import CONTEXT, Clients

CLAUDE_TOOLS: list[Any] = [
    {
        "name": tool["function"]["name"],
        "description": tool["function"]["description"],
        "input_schema": tool["function"]["parameters"],
    }
    for tool in TOOLS
]
CALLED: list[Any] = [
    *HI,
    {
        "role": "assistant",
        "content": [
            {"type": "text", "text": "Let me look."},
            {"type": "tool_use", "id": "t1", "name": "weather", "input": {"city": "Paris"}},
        ],
    },
    {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "t1", "content": "Rain."}]},
]

CELLS: list[Cell] = []
cell = table_of(CELLS, "messages")


async def ask(clients: Clients, **fields: Any) -> Any:
    given: Any = {"model": MODEL, "messages": HI, "max_tokens": 8, "extra_body": {"temperature": 0}} | fields
    answer = await clients.claude.messages.create(**given)
    return answer.model_dump(mode="json", exclude_unset=True)


async def stream(clients: Clients, **fields: Any) -> Any:
    given: Any = {"model": MODEL, "messages": HI, "max_tokens": 8, "extra_body": {"temperature": 0}} | fields
    kinds: list[str] = []
    starts: list[Any] = []
    async with clients.claude.messages.stream(**given) as events:
        async for event in events:
            if not kinds or kinds[-1] != event.type:
                kinds.append(event.type)
            if event.type == "message_start":
                starts.append(event.message.usage.model_dump(mode="json", exclude_unset=True))
        final = await events.get_final_message()
    return {"events": kinds, "starts": starts, "final": final.model_dump(mode="json", exclude_unset=True)}


async def count(clients: Clients, **fields: Any) -> Any:
    given: Any = {"model": MODEL, "messages": HI} | fields
    counted = await clients.claude.messages.count_tokens(**given)
    return counted.model_dump(mode="json", exclude_unset=True)


@cell("plain")
async def _(clients: Clients) -> Any:
    answer = await ask(clients, system="Be kind.")
    assert answer["content"][0]["text"] and answer["stop_reason"] in ("end_turn", "max_tokens")
    return answer


@cell("stream")
async def _(clients: Clients) -> Any:
    told = await stream(clients)
    assert told["events"][-1] == "message_stop"
    assert told["starts"][0]["input_tokens"] + told["starts"][0]["cache_read_input_tokens"] > 10
    return told


@cell("stop")
async def _(clients: Clients) -> Any:
    answer = await ask(clients, stop_sequences=["nine", "four"])
    assert answer["stop_reason"] == "stop_sequence" and answer["stop_sequence"] == "four"
    return answer


@cell("top_k and top_p")
async def _(clients: Clients) -> Any:
    return await ask(clients, extra_body={"temperature": 1.0, "top_k": 1, "top_p": 0.9})


@cell("json_schema")
async def _(clients: Clients) -> Any:
    form = {"temperature": 0, "output_config": {"format": {"type": "json_schema", "schema": COLOUR}}}
    answer = await ask(clients, messages=AS_JSON, max_tokens=40, extra_body=form)
    assert json.loads(answer["content"][0]["text"])["colour"] in ("red", "green")
    return answer


@cell("tools auto")
async def _(clients: Clients) -> Any:
    return await ask(clients, messages=[{"role": "user", "content": SUM}], tools=CLAUDE_TOOLS, max_tokens=6)


@cell("tools none")
async def _(clients: Clients) -> Any:
    return await ask(clients, tools=CLAUDE_TOOLS, tool_choice={"type": "none"})


@cell("tools any")
async def _(clients: Clients) -> Any:
    answer = await ask(clients, tools=CLAUDE_TOOLS, tool_choice={"type": "any"}, max_tokens=60)
    (block,) = answer["content"]
    assert answer["stop_reason"] == "tool_use" and block["input"]["city"] in ("Paris", "Rome")
    return without_counts(answer)


@cell("tool named in a stream")
async def _(clients: Clients) -> Any:
    named = {"type": "tool", "name": "time"}
    told = await stream(clients, tools=CLAUDE_TOOLS, tool_choice=named, max_tokens=60)
    assert "input_json" in told["events"] and told["final"]["content"][0]["name"] == "time"
    return told | {"final": without_counts(told["final"])}


@cell("tool results")
async def _(clients: Clients) -> Any:
    return await ask(clients, messages=CALLED, tools=CLAUDE_TOOLS)


@cell("prefill")
async def _(clients: Clients) -> Any:
    return await ask(clients, messages=[*HI, {"role": "assistant", "content": "One two three"}])


@cell("thinking disabled")
async def _(clients: Clients) -> Any:
    return await ask(clients, thinking={"type": "disabled"})


@cell("no max_tokens", refused=bad())
async def _(clients: Clients) -> Any:
    return await ask(clients, max_tokens=None)


@cell("beyond the context", refused=bad())
async def _(clients: Clients) -> Any:
    return await ask(clients, messages=[{"role": "user", "content": "hello world " * CONTEXT}])


@cell("document", refused=bad())
async def _(clients: Clients) -> Any:
    block = {"type": "document", "source": {"type": "text", "media_type": "text/plain", "data": "x"}}
    return await ask(clients, messages=[{"role": "user", "content": [block]}])


@cell("count_tokens")
async def _(clients: Clients) -> Any:
    counted = await count(clients, system="Be kind.")
    assert counted["input_tokens"] > 10
    return counted


@cell("count_tokens with tools")
async def _(clients: Clients) -> Any:
    counted = await count(clients, tools=CLAUDE_TOOLS)
    assert counted["input_tokens"] > 40
    return counted


@cell("count_tokens without messages", refused=bad())
async def _(clients: Clients) -> Any:
    return await count(clients, messages=[7])
