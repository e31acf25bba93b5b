"""What users of the `anthropic` package do, pointed at a node."""

from typing import Any

import anthropic
import pytest

from tests.interaction.nodes import MODEL

pytestmark = pytest.mark.real

HI: list[Any] = [{"role": "user", "content": "Say hello."}]
TOOLS: list[Any] = [
    {
        "name": name,
        "description": f"Get the {name}",
        "input_schema": {
            "type": "object",
            "properties": {"city": {"enum": ["Paris", "Rome"]}},
            "required": ["city"],
            "additionalProperties": False,
        },
    }
    for name in ("weather", "time")
]


async def test_a_message_gets_an_answer(claude: anthropic.AsyncAnthropic) -> None:
    answer = await claude.messages.create(model=MODEL, messages=HI, max_tokens=4, system="Be kind.")
    (block,) = answer.content
    assert block.type == "text" and block.text
    assert answer.model == MODEL
    assert answer.stop_reason in ("max_tokens", "end_turn")
    read = answer.usage.input_tokens + (answer.usage.cache_read_input_tokens or 0)
    assert read > 10 and 0 < answer.usage.output_tokens <= 4


async def test_a_streamed_message_knows_its_input_from_the_start(claude: anthropic.AsyncAnthropic) -> None:
    async with claude.messages.stream(model=MODEL, messages=HI, max_tokens=6) as stream:
        events = [event async for event in stream]
        final = await stream.get_final_message()
    start = next(event for event in events if event.type == "message_start")
    usage = start.message.usage
    assert usage.input_tokens + (usage.cache_read_input_tokens or 0) > 10
    assert events[-1].type == "message_stop"
    assert final.content[0].type == "text" and final.content[0].text
    assert final.usage.output_tokens > 0


async def test_the_sequence_that_stopped_the_answer_is_named(claude: anthropic.AsyncAnthropic) -> None:
    answer = await claude.messages.create(
        model=MODEL,
        messages=HI,
        max_tokens=200,
        stop_sequences=["!", ".", "?"],
        extra_body={"temperature": 0},
    )
    assert answer.stop_reason == "stop_sequence"
    assert answer.stop_sequence in ("!", ".", "?")


@pytest.mark.parametrize("choice", [{"type": "any"}, {"type": "tool", "name": "time"}])
async def test_an_enforced_tool_is_used(claude: anthropic.AsyncAnthropic, choice: Any) -> None:
    answer = await claude.messages.create(
        model=MODEL, messages=HI, max_tokens=120, tools=TOOLS, tool_choice=choice
    )
    assert answer.stop_reason == "tool_use"
    (block,) = answer.content
    assert block.type == "tool_use"
    assert block.name in (["time"] if choice["type"] == "tool" else ["time", "weather"])
    assert block.input["city"] in ("Paris", "Rome")


async def test_a_streamed_tool_use_is_put_together_by_the_sdk(claude: anthropic.AsyncAnthropic) -> None:
    async with claude.messages.stream(
        model=MODEL, messages=HI, max_tokens=120, tools=TOOLS, tool_choice={"type": "any"}
    ) as stream:
        kinds = [event.type async for event in stream]
        final = await stream.get_final_message()
    assert "input_json" in kinds
    assert final.content[0].type == "tool_use"
    assert final.content[0].input["city"] in ("Paris", "Rome")


async def test_a_conversation_goes_on_after_a_tool_result(claude: anthropic.AsyncAnthropic) -> None:
    messages: list[Any] = [
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
    answer = await claude.messages.create(model=MODEL, messages=messages, max_tokens=8, tools=TOOLS)
    assert answer.content


async def test_counting_tokens_agrees_with_what_is_read(claude: anthropic.AsyncAnthropic) -> None:
    for tools in ([], TOOLS):
        told: Any = {"model": MODEL, "messages": HI} | ({"tools": tools} if tools else {})
        counted = await claude.messages.count_tokens(**told)
        answer = await claude.messages.create(**told, max_tokens=1)
        read = answer.usage.input_tokens + (answer.usage.cache_read_input_tokens or 0)
        assert counted.input_tokens == read


async def test_errors_come_in_anthropics_shape(claude: anthropic.AsyncAnthropic) -> None:
    with pytest.raises(anthropic.NotFoundError) as refused:
        await claude.messages.create(model="claude-9", messages=HI, max_tokens=1)
    assert isinstance(refused.value.body, dict)
    assert refused.value.body["type"] == "error"
    assert refused.value.body["error"]["type"] == "not_found_error"
