"""A model whose template knows tools and thoughts, in a head beside llama-server."""

import asyncio
import json

import pytest

from tests.engine.head.heads import client, kept, lone_head, whole_engine
from tests.engine.head.tool_model import TOOL, write_tool_model

pytestmark = pytest.mark.real

QUIET = {"chat_template_kwargs": {"enable_thinking": False}, "cache_prompt": False, "temperature": 0}


@pytest.fixture(scope="module")
def model(smollm2, tmp_path_factory):
    path = tmp_path_factory.mktemp("model") / "with-tools.gguf"
    asyncio.run(write_tool_model(smollm2, path))
    return path


@pytest.fixture(scope="module")
def whole(model):
    with kept(lambda: whole_engine(model, prompt_cache_mib=0)) as endpoint:
        yield endpoint


@pytest.fixture(scope="module")
def head(model):
    with kept(lambda: lone_head(model)) as endpoint:
        yield endpoint


@pytest.fixture
async def both(whole, head):
    async with client(whole) as theirs, client(head) as ours:
        yield theirs, ours


def asked(text: str, **fields):
    return {"messages": [{"role": "user", "content": text}], "max_tokens": 12, **QUIET, **fields}


async def chat(client, body):
    status, answer = await client.post("/v1/chat/completions", body)
    assert status == 200, answer
    choice = answer["choices"][0]
    return choice["message"], choice["finish_reason"], answer["usage"]["completion_tokens"]


async def test_abilities_are_those_that_llama_server_finds(both):
    (_, expected), (_, got) = [await each.get("/props") for each in both]
    caps = got["chat_template_caps"]
    assert caps == {name: expected["chat_template_caps"][name] for name in caps}
    assert caps["supports_tools"] and caps["supports_tool_calls"]


@pytest.mark.parametrize(
    "body",
    [
        asked("Name a fruit."),
        asked("What is two plus two?", tools=[TOOL]),  # no token of it is all but equal to another
        asked("Name a fruit.", chat_template_kwargs={"enable_thinking": True}),
        asked("Name a fruit.", chat_template_kwargs={"enable_thinking": True}, reasoning_format="none"),
    ],
    ids=str,
)
async def test_answers_and_thoughts_are_the_same(both, body):
    theirs, ours = both
    assert await chat(ours, body) == await chat(theirs, body)


async def test_an_answer_that_was_begun_goes_on_in_the_stream(both):
    begun = [{"role": "user", "content": "x"}, {"role": "assistant", "content": "A"}]
    told = [
        "".join(
            [
                choice["delta"].get("content") or ""
                async for event in each.events("/v1/chat/completions", asked("x") | {"messages": begun})
                for choice in event["choices"]
            ]
        )
        for each in both
    ]
    assert told[0] == told[1]


@pytest.mark.parametrize("thoughts", [{}, {"reasoning_content": "Fruit?"}], ids=["said", "thought and said"])
async def test_a_whole_answer_begins_with_what_the_client_began(both, thoughts):
    begun = [{"role": "user", "content": "x"}, {"role": "assistant", "content": "Well, ", **thoughts}]
    body = asked("x", max_tokens=8) | {"messages": begun}
    theirs, ours = both
    expected, got = await chat(theirs, body), await chat(ours, body)
    assert got == expected
    assert got[0]["content"].startswith("Well, ") and ("reasoning_content" in got[0]) == bool(thoughts)


@pytest.mark.parametrize("choice", ["auto", "none"])
async def test_tools_are_in_the_prompt_whether_they_may_be_called_or_not(both, choice):
    body = asked("Name a fruit.", tools=[TOOL], tool_choice=choice)
    (_, expected), (_, got) = [await each.post("/apply-template", body) for each in both]
    assert got == expected


async def test_a_call_that_is_required_comes_and_its_arguments_keep_to_their_schema(both):
    _, ours = both
    body = asked("How is the weather in Rome?", tools=[TOOL], tool_choice="required", max_tokens=120)
    body["parallel_tool_calls"] = False
    message, reason, _ = await chat(ours, body)
    (call,) = message["tool_calls"]
    arguments = json.loads(call["function"]["arguments"])
    assert (call["type"], call["function"]["name"], reason) == ("function", "weather", "tool_calls")
    assert set(arguments) == {"town", "days"} and arguments["days"] in (1, 3, 7)
    pieces = [event async for event in ours.events("/v1/chat/completions", body)]
    deltas = [choice["delta"] for event in pieces for choice in event["choices"]]
    calls = [call for delta in deltas for call in delta.get("tool_calls", [])]
    assert (
        "".join(call["function"]["arguments"] for call in calls)
        == message["tool_calls"][0]["function"]["arguments"]
    )
    assert "<tool_call>" not in "".join(delta.get("content") or "" for delta in deltas)
