"""Where the chat template knows tools the engine is trusted with them, but not with enforcing a call."""

import json
from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest

from tests.gateway.engine import Engine, a_backend
from tests.gateway.serving import client_of

pytestmark = pytest.mark.real

TEMPLATE = """{%- if tools %}<|im_start|>system
You may call:
{%- for tool in tools %}
{{ tool | tojson }}
{%- endfor %}
Call with <tool_call>{"name": NAME, "arguments": OBJECT}</tool_call>.<|im_end|>
{% endif %}
{%- for message in messages %}<|im_start|>{{ message.role }}
{{ message.content or '' }}
{%- for call in message.tool_calls or [] %}
<tool_call>
{"name": "{{ call.function.name }}", "arguments": {{ call.function.arguments | tojson }}}
</tool_call>
{%- endfor %}<|im_end|>
{% endfor %}
{%- if add_generation_prompt %}<|im_start|>assistant
{% endif %}"""
"""In the manner of Qwen2.5."""

TOOLS: list[Any] = [
    {
        "type": "function",
        "function": {
            "name": "look",
            "parameters": {"type": "object", "properties": {"at": {"enum": ["sky"]}}, "required": ["at"]},
        },
    }
]
CHAT: dict[str, Any] = {"messages": [{"role": "user", "content": "Look."}], "max_tokens": 100, "tools": TOOLS}


@pytest.fixture(scope="module")
def engine(smollm2: Path) -> Generator[Engine]:
    engine = Engine(smollm2, chat_template=TEMPLATE, context=2048)
    yield engine
    engine.stop()


async def test_tools_reach_a_template_that_knows_them(engine: Engine) -> None:
    async with client_of([a_backend(engine.endpoint)]) as client:
        _, plain = await client.post("/v1/chat/completions", {"messages": CHAT["messages"], "max_tokens": 1})
        _, tooled = await client.post("/v1/chat/completions", CHAT | {"max_tokens": 1})
        _, counted = await client.post("/v1/messages/count_tokens", {"messages": CHAT["messages"]})
        status, refused = await client.post("/v1/chat/completions", CHAT | {"logprobs": True})
    assert tooled["usage"]["prompt_tokens"] > plain["usage"]["prompt_tokens"] + 20
    assert counted["input_tokens"] == plain["usage"]["prompt_tokens"]
    assert (status, refused["error"]["param"]) == (400, "logprobs")


@pytest.mark.parametrize("choice", ["required", {"type": "function", "function": {"name": "look"}}])
async def test_an_enforced_call_is_made_where_the_engine_would_only_suggest_it(
    engine: Engine, choice: Any
) -> None:
    async with client_of([a_backend(engine.endpoint)]) as client:
        status, answer = await client.post("/v1/chat/completions", CHAT | {"tool_choice": choice})
    assert status == 200, answer
    (call,) = answer["choices"][0]["message"]["tool_calls"]
    assert json.loads(call["function"]["arguments"]) == {"at": "sky"}


async def test_an_engine_killed_in_mid_answer_is_explained(engine: Engine) -> None:
    body = {"messages": CHAT["messages"], "max_tokens": 1500, "ignore_eos": True, "stream": True}
    async with (
        client_of([a_backend(engine.endpoint)]) as client,
        client.session.post(f"{client.url}/v1/chat/completions", json=body) as response,
    ):
        await response.content.readany()
        engine.kill()
        rest = await response.read()
        error = json.loads(rest.rsplit(b"data: ", 1)[1])["error"]
        assert "killed (signal 9)" in error["message"]
        status, answer = await client.post("/v1/chat/completions", CHAT)
        assert (status, answer["error"]["code"]) == (502, "engine_failed")
