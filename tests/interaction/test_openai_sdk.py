"""What users of the `openai` package do, pointed at a node."""

import base64
import json
import struct
from typing import Any

import openai
import pytest

from tests.interaction.nodes import MODEL

pytestmark = pytest.mark.real

HI: list[Any] = [{"role": "user", "content": "Say hello."}]
WEATHER: list[Any] = [{"role": "user", "content": "What is the weather in Paris?"}]
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
COLOUR = {
    "type": "object",
    "properties": {"colour": {"enum": ["red", "green"]}},
    "required": ["colour"],
    "additionalProperties": False,
}


async def test_models_are_listed_with_what_they_can(ai: openai.AsyncOpenAI) -> None:
    (model,) = [model async for model in ai.models.list()]
    assert model.id == MODEL
    extras = model.model_extra
    assert extras is not None
    assert extras["context_length"] == 8192
    assert extras["status"] == "ready"
    assert "chat" in extras["capabilities"]
    assert (await ai.models.retrieve(MODEL)).id == MODEL


async def test_a_chat_gets_an_answer_with_usage(ai: openai.AsyncOpenAI) -> None:
    answer = await ai.chat.completions.create(model=MODEL, temperature=0, messages=HI, max_tokens=8, seed=1)
    assert answer.model == MODEL
    assert answer.choices[0].message.content
    assert answer.choices[0].finish_reason in ("stop", "length")
    assert answer.usage is not None
    assert answer.usage.prompt_tokens > 10
    assert 0 < answer.usage.completion_tokens <= 8


async def test_a_streamed_chat_ends_with_its_usage_when_asked(ai: openai.AsyncOpenAI) -> None:
    stream = await ai.chat.completions.create(
        model=MODEL,
        temperature=0,
        messages=HI,
        max_tokens=8,
        stream=True,
        stream_options={"include_usage": True},
    )
    chunks = [chunk async for chunk in stream]
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    assert {chunk.model for chunk in chunks} == {MODEL}
    assert chunks[-1].usage is not None and chunks[-1].usage.completion_tokens <= 8
    assert all(chunk.usage is None for chunk in chunks[:-1])


async def test_streamed_and_whole_answers_say_the_same(ai: openai.AsyncOpenAI) -> None:
    told: Any = {"model": MODEL, "messages": HI, "max_tokens": 12, "temperature": 0}
    whole = await ai.chat.completions.create(**told)
    stream = await ai.chat.completions.create(**told, stream=True)
    pieces = [chunk.choices[0].delta.content or "" async for chunk in stream]
    assert "".join(pieces) == whole.choices[0].message.content


async def test_three_choices_count_all_their_tokens(ai: openai.AsyncOpenAI) -> None:
    answer = await ai.chat.completions.create(
        model=MODEL, temperature=0, messages=HI, max_tokens=4, n=3, extra_body={"ignore_eos": True}
    )
    assert [choice.index for choice in answer.choices] == [0, 1, 2]
    assert all(choice.message.content for choice in answer.choices)
    assert answer.usage is not None
    assert answer.usage.completion_tokens == 12
    assert answer.usage.prompt_tokens < 40


async def test_three_streamed_choices_have_one_usage(ai: openai.AsyncOpenAI) -> None:
    stream = await ai.chat.completions.create(
        model=MODEL,
        temperature=0,
        messages=HI,
        max_tokens=4,
        n=3,
        stream=True,
        stream_options={"include_usage": True},
        extra_body={"ignore_eos": True},
    )
    chunks = [chunk async for chunk in stream]
    usages = [chunk.usage for chunk in chunks if chunk.usage is not None]
    assert [usage.completion_tokens for usage in usages] == [12]
    assert chunks[-1].usage is not None
    assert {chunk.choices[0].index for chunk in chunks if chunk.choices} == {0, 1, 2}


async def test_log_probabilities_come_with_as_many_rivals_as_asked(ai: openai.AsyncOpenAI) -> None:
    answer = await ai.chat.completions.create(
        model=MODEL, temperature=0, messages=HI, max_tokens=3, logprobs=True, top_logprobs=2
    )
    logprobs = answer.choices[0].logprobs
    assert logprobs is not None and logprobs.content is not None
    assert 1 <= len(logprobs.content) <= 3
    assert all(token.logprob <= 0 and len(token.top_logprobs) == 2 for token in logprobs.content)
    assert "".join(token.token for token in logprobs.content) == answer.choices[0].message.content


async def test_log_probabilities_without_rivals_are_not_dropped(ai: openai.AsyncOpenAI) -> None:
    answer = await ai.chat.completions.create(
        model=MODEL, temperature=0, messages=HI, max_tokens=2, logprobs=True, top_logprobs=0
    )
    assert answer.choices[0].logprobs is not None and answer.choices[0].logprobs.content


@pytest.mark.parametrize("strict", [True, False])
async def test_an_answer_follows_a_json_schema(ai: openai.AsyncOpenAI, strict: bool) -> None:
    answer = await ai.chat.completions.create(
        model=MODEL,
        temperature=0,
        messages=HI,
        max_tokens=60,
        response_format={
            "type": "json_schema",
            "json_schema": {"name": "colour", "strict": strict, "schema": COLOUR},
        },
    )
    assert json.loads(answer.choices[0].message.content or "")["colour"] in ("red", "green")


async def test_a_required_tool_call_is_made(ai: openai.AsyncOpenAI) -> None:
    answer = await ai.chat.completions.create(
        model=MODEL, temperature=0, messages=WEATHER, tools=TOOLS, tool_choice="required", max_tokens=120
    )
    (choice,) = answer.choices
    assert choice.finish_reason == "tool_calls"
    assert choice.message.content is None
    (call,) = choice.message.tool_calls or []
    assert call.type == "function"
    assert call.function.name in ("weather", "time")
    assert json.loads(call.function.arguments)["city"] in ("Paris", "Rome")


async def test_a_named_tool_is_called_and_no_other(ai: openai.AsyncOpenAI) -> None:
    stream = ai.chat.completions.stream(
        model=MODEL,
        temperature=0,
        messages=WEATHER,
        tools=TOOLS,
        tool_choice={"type": "function", "function": {"name": "time"}},
        max_tokens=120,
    )
    async with stream as events:
        names = [event.name async for event in events if event.type == "tool_calls.function.arguments.delta"]
        final = await events.get_final_completion()
    assert set(names) == {"time"}
    assert len(names) > 1  # arguments stream while they are written
    (call,) = final.choices[0].message.tool_calls or []
    assert json.loads(call.function.arguments)["city"] in ("Paris", "Rome")
    assert final.choices[0].finish_reason == "tool_calls"


async def test_an_automatic_choice_leaves_plain_answers_alone(ai: openai.AsyncOpenAI) -> None:
    answer = await ai.chat.completions.create(
        model=MODEL, messages=HI, tools=TOOLS, tool_choice="auto", max_tokens=12, temperature=0
    )
    message = answer.choices[0].message
    assert message.content or message.tool_calls


async def test_an_automatic_choice_finds_the_call_in_the_reply(ai: openai.AsyncOpenAI) -> None:
    grammar = 'root ::= "{\\"name\\": \\"weather\\", \\"arguments\\": {\\"city\\": \\"Rome\\"}}"'
    answer = await ai.chat.completions.create(
        model=MODEL,
        temperature=0,
        messages=WEATHER,
        tools=TOOLS,
        max_tokens=60,
        extra_body={"grammar": grammar},
    )
    (call,) = answer.choices[0].message.tool_calls or []
    assert (call.function.name, json.loads(call.function.arguments)) == ("weather", {"city": "Rome"})
    assert answer.choices[0].finish_reason == "tool_calls"


async def test_the_result_of_a_tool_reaches_a_model_whose_template_knows_no_tools(
    ai: openai.AsyncOpenAI,
) -> None:
    call = {"id": "c1", "type": "function", "function": {"name": "weather", "arguments": '{"city":"Paris"}'}}
    history: list[Any] = [
        *WEATHER,
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "c1", "content": "It rains frogs."},
    ]
    with_result = await ai.chat.completions.create(
        model=MODEL, messages=history, tools=TOOLS, max_tokens=1, temperature=0
    )
    without = await ai.chat.completions.create(
        model=MODEL, messages=WEATHER, tools=TOOLS, max_tokens=1, temperature=0
    )
    assert with_result.usage is not None and without.usage is not None
    assert with_result.usage.prompt_tokens > without.usage.prompt_tokens + 20


async def test_completions_of_several_prompts_count_each_prompt_once(ai: openai.AsyncOpenAI) -> None:
    answer = await ai.completions.create(
        model=MODEL,
        temperature=0,
        prompt=["a b c d", "e"],
        n=2,
        max_tokens=3,
        extra_body={"ignore_eos": True},
    )
    assert [choice.index for choice in answer.choices] == [0, 1, 2, 3]
    assert answer.usage is not None
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens) == (5, 12)


async def test_completions_stream_and_echo(ai: openai.AsyncOpenAI) -> None:
    stream = await ai.completions.create(
        model=MODEL, temperature=0, prompt="Once upon", max_tokens=4, echo=True, stream=True
    )
    pieces = [chunk.choices[0].text async for chunk in stream if chunk.choices]
    assert "".join(pieces).startswith("Once upon")
    assert len("".join(pieces)) > len("Once upon")


async def test_completions_give_log_probabilities_in_four_lists(ai: openai.AsyncOpenAI) -> None:
    answer = await ai.completions.create(
        model=MODEL, temperature=0, prompt="One two", max_tokens=3, logprobs=2
    )
    logprobs = answer.choices[0].logprobs
    assert logprobs is not None
    assert logprobs.tokens and logprobs.token_logprobs and logprobs.top_logprobs and logprobs.text_offset
    assert "".join(logprobs.tokens) == answer.choices[0].text
    assert all(len(rivals) == 2 for rivals in logprobs.top_logprobs)
    assert logprobs.text_offset[1] == len(logprobs.tokens[0])


async def test_embeddings_come_as_numbers_and_as_base64(ai: openai.AsyncOpenAI) -> None:
    plain = await ai.embeddings.create(model=MODEL, input=["cat", "dog"], encoding_format="float")
    packed = await ai.embeddings.create(model=MODEL, input=["cat", "dog"], encoding_format="base64")
    assert [len(row.embedding) for row in plain.data] == [576, 576]
    assert plain.usage.prompt_tokens == 2
    unpacked = packed.data[0].embedding
    if isinstance(unpacked, str):
        unpacked = list(struct.unpack("<576f", base64.b64decode(unpacked)))
    assert unpacked == pytest.approx(plain.data[0].embedding, abs=1e-4)


async def test_an_embedding_of_other_dimensions_is_refused(ai: openai.AsyncOpenAI) -> None:
    with pytest.raises(openai.BadRequestError, match="576 dimensions only"):
        await ai.embeddings.create(model=MODEL, input="cat", dimensions=64)
    assert (await ai.embeddings.create(model=MODEL, input="cat", dimensions=576)).data


async def test_a_response_is_created(ai: openai.AsyncOpenAI) -> None:
    answer = await ai.responses.create(
        model=MODEL, input="Say hello.", instructions="Be brief.", temperature=0
    )
    assert answer.status == "completed"
    assert answer.output_text
    assert answer.model == MODEL
    assert answer.usage is not None and answer.usage.output_tokens > 0


async def test_a_response_cut_short_says_so(ai: openai.AsyncOpenAI) -> None:
    answer = await ai.responses.create(
        model=MODEL, input="Count to a hundred.", max_output_tokens=3, temperature=0
    )
    assert answer.status == "incomplete"
    assert answer.incomplete_details is not None
    assert answer.incomplete_details.reason == "max_output_tokens"


async def test_a_streamed_response_numbers_its_events(ai: openai.AsyncOpenAI) -> None:
    stream = await ai.responses.create(model=MODEL, input="Say hello.", temperature=0, stream=True)
    events = [event async for event in stream]
    assert [event.sequence_number for event in events] == list(range(len(events)))
    assert events[0].type == "response.created"
    assert events[-1].type == "response.completed"
    deltas = [event for event in events if event.type == "response.output_text.delta"]
    assert {(delta.output_index, delta.content_index) for delta in deltas} == {(0, 0)}
    assert "".join(delta.delta for delta in deltas) == events[-1].response.output_text


async def test_the_sdks_own_response_stream_works(ai: openai.AsyncOpenAI) -> None:
    async with ai.responses.stream(model=MODEL, input="Say hello.", temperature=0) as stream:
        kinds = [event.type async for event in stream]
        final = await stream.get_final_response()
    assert "response.output_text.done" in kinds
    assert final.output_text


async def test_a_response_calls_the_tool_it_must(ai: openai.AsyncOpenAI) -> None:
    tools: Any = [{"type": "function", "strict": True} | tool["function"] for tool in TOOLS]
    async with ai.responses.stream(
        model=MODEL,
        temperature=0,
        input="Weather in Paris?",
        tools=tools,
        tool_choice={"type": "function", "name": "weather"},
    ) as stream:
        kinds = [event.type async for event in stream]
        final = await stream.get_final_response()
    assert "response.function_call_arguments.delta" in kinds
    (call,) = final.output
    assert call.type == "function_call"
    assert call.name == "weather"
    assert json.loads(call.arguments)["city"] in ("Paris", "Rome")


async def test_a_response_follows_a_json_schema(ai: openai.AsyncOpenAI) -> None:
    answer = await ai.responses.create(
        model=MODEL,
        temperature=0,
        input="A colour?",
        text={"format": {"type": "json_schema", "name": "colour", "schema": COLOUR, "strict": True}},
    )
    assert json.loads(answer.output_text)["colour"] in ("red", "green")


async def test_a_response_continues_a_conversation_with_a_tool_result(ai: openai.AsyncOpenAI) -> None:
    items: Any = [
        {"role": "user", "content": [{"type": "input_text", "text": "Weather in Paris?"}]},
        {"type": "function_call", "call_id": "c1", "name": "weather", "arguments": '{"city":"Paris"}'},
        {"type": "function_call_output", "call_id": "c1", "output": "Rain."},
    ]
    answer = await ai.responses.create(model=MODEL, temperature=0, input=items, max_output_tokens=30)
    assert answer.output_text


async def test_an_unknown_model_is_a_404_that_names_the_known_ones(ai: openai.AsyncOpenAI) -> None:
    with pytest.raises(openai.NotFoundError, match=MODEL) as refused:
        await ai.chat.completions.create(model="gpt-9", messages=HI)
    assert refused.value.code == "model_not_found"


async def test_a_prompt_beyond_the_context_is_a_400_with_the_numbers(ai: openai.AsyncOpenAI) -> None:
    with pytest.raises(openai.BadRequestError) as refused:
        await ai.chat.completions.create(
            model=MODEL,
            temperature=0,
            messages=[{"role": "user", "content": "hello world " * 5000}],
            max_tokens=2,
        )
    assert refused.value.code == "context_length_exceeded"
    assert isinstance(refused.value.body, dict)
    assert refused.value.body["n_ctx"] == 8192
    assert refused.value.body["n_prompt_tokens"] > 8192


async def test_a_stream_that_is_closed_early_leaves_the_model_free(ai: openai.AsyncOpenAI) -> None:
    told: Any = {"model": MODEL, "messages": HI, "max_tokens": 7000, "extra_body": {"ignore_eos": True}}
    for _ in range(5):  # one more than there are slots: each must be free again at once
        async with await ai.chat.completions.create(**told, stream=True) as stream:
            async for chunk in stream:
                assert chunk.choices
                break
    answer = await ai.chat.completions.create(
        model=MODEL, temperature=0, messages=HI, max_tokens=2, timeout=10
    )
    assert answer.choices[0].message.content
