"""Cells of `/v1/responses`, through the `openai` package."""

import json
from typing import Any

from tests.interaction.nodes import MODEL
from tests.interaction.surfaces.cells import Cell, bad, table_of
from tests.interaction.surfaces.chat import AS_JSON, COLOUR, SAID, SUM, TOOLS
from tests.interaction.surfaces.outcomes import without_counts
from tests.interaction.surfaces.placements import CONTEXT, Clients

FLAT_TOOLS: list[Any] = [{"type": "function", "strict": True} | tool["function"] for tool in TOOLS]
CALLED: list[Any] = [
    {"role": "user", "content": [{"type": "input_text", "text": "Weather in Paris?"}]},
    {"type": "function_call", "call_id": "c1", "name": "weather", "arguments": '{"city":"Paris"}'},
    {"type": "function_call_output", "call_id": "c1", "output": "Rain."},
]

CELLS: list[Cell] = []
cell = table_of(CELLS, "responses")


async def ask(clients: Clients, **fields: Any) -> Any:
    given: Any = {"model": MODEL, "input": SAID, "max_output_tokens": 8, "temperature": 0} | fields
    answer = await clients.ai.responses.create(**given)
    return answer.model_dump(mode="json", exclude_unset=True)


async def stream(clients: Clients, **fields: Any) -> Any:
    given: Any = {"model": MODEL, "input": SAID, "max_output_tokens": 8, "temperature": 0} | fields
    kinds: list[str] = []
    final: Any = None
    numbers: list[int] = []
    async for event in await clients.ai.responses.create(**given, stream=True):
        numbers.append(event.sequence_number)
        if not kinds or kinds[-1] != event.type:
            kinds.append(event.type)
        final = event.model_dump(mode="json", exclude_unset=True)
    assert numbers == list(range(len(numbers)))
    return {"events": kinds, "final": final["response"]}


def text(answer: Any) -> str:
    return answer["output"][0]["content"][0]["text"]


@cell("plain")
async def _(clients: Clients) -> Any:
    answer = await ask(clients, instructions="Be brief.", max_output_tokens=30)
    assert text(answer) and answer["status"] == "completed"
    return answer


@cell("cut short")
async def _(clients: Clients) -> Any:
    answer = await ask(clients, max_output_tokens=2)
    assert answer["incomplete_details"]["reason"] == "max_output_tokens"
    return answer


@cell("stream")
async def _(clients: Clients) -> Any:
    told = await stream(clients)
    assert told["events"][0] == "response.created" and text(told["final"])
    return told


@cell("seed")
async def _(clients: Clients) -> Any:
    return await ask(clients, temperature=1.1, extra_body={"seed": 5})


@cell("logprobs")
async def _(clients: Clients) -> Any:
    answer = await ask(clients, include=["message.output_text.logprobs"], top_logprobs=2, max_output_tokens=3)
    assert answer["output"][0]["content"][0]["logprobs"]
    return answer


@cell("json_object")
async def _(clients: Clients) -> Any:
    form = {"type": "json_object"}
    answer = await ask(clients, input=AS_JSON, text={"format": form}, max_output_tokens=40)
    assert json.loads(text(answer))
    return answer


@cell("json_schema")
async def _(clients: Clients) -> Any:
    form = {"type": "json_schema", "name": "colour", "schema": COLOUR, "strict": True}
    answer = await ask(clients, input=AS_JSON, text={"format": form}, max_output_tokens=40)
    assert json.loads(text(answer))["colour"] in ("red", "green")
    return answer


@cell("tools auto")
async def _(clients: Clients) -> Any:
    return await ask(clients, input=SUM, tools=FLAT_TOOLS, max_output_tokens=6)


@cell("tools required")
async def _(clients: Clients) -> Any:
    answer = await ask(clients, tools=FLAT_TOOLS, tool_choice="required", max_output_tokens=60)
    (call,) = answer["output"]
    assert call["type"] == "function_call"
    assert json.loads(call["arguments"])["city"] in ("Paris", "Rome")
    return without_counts(answer)


@cell("tools named in a stream")
async def _(clients: Clients) -> Any:
    named = {"type": "function", "name": "weather"}
    told = await stream(clients, tools=FLAT_TOOLS, tool_choice=named, max_output_tokens=60)
    assert "response.function_call_arguments.delta" in told["events"]
    return told | {"final": without_counts(told["final"])}


@cell("tool results")
async def _(clients: Clients) -> Any:
    return await ask(clients, input=CALLED)


@cell("previous_response_id", refused=bad("unsupported_parameter", "previous_response_id"))
async def _(clients: Clients) -> Any:
    return await ask(clients, previous_response_id="resp_1")


@cell("unknown item", refused=bad("unsupported_content", "input[0].type"))
async def _(clients: Clients) -> Any:
    return await ask(clients, input=[{"type": "item_reference", "id": "x"}])


@cell("beyond the context", refused=bad("context_length_exceeded"))
async def _(clients: Clients) -> Any:
    return await ask(clients, input="hello world " * CONTEXT)


@cell("temperature in words", refused=bad("invalid_type", "temperature"))
async def _(clients: Clients) -> Any:
    return await ask(clients, temperature="hot")
