"""Whatever JSON comes in, preparing it ends in a request for the engine or in a refusal, never in a crash."""

import contextlib
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mesh_llm.core.errors import RequestRefused
from mesh_llm.gateway.endpoints import FORWARDINGS, GENERATIONS, Situation
from mesh_llm.gateway.exchange import TemplateAbilities
from mesh_llm.gateway.openai import tools
from tests.gateway.engine import a_model

NAMES = [
    "messages",
    "role",
    "content",
    "type",
    "text",
    "image_url",
    "url",
    "input_audio",
    "tool_calls",
    "function",
    "name",
    "arguments",
    "id",
    "tool_call_id",
    "tools",
    "parameters",
    "description",
    "tool_choice",
    "allowed_tools",
    "mode",
    "response_format",
    "json_schema",
    "schema",
    "strict",
    "n",
    "stop",
    "stream",
    "stream_options",
    "include_usage",
    "logprobs",
    "top_logprobs",
    "prompt",
    "echo",
    "suffix",
    "best_of",
    "input",
    "instructions",
    "call_id",
    "output",
    "item",
    "max_output_tokens",
    "max_tokens",
    "text",
    "format",
    "reasoning",
    "effort",
    "include",
    "thinking",
    "thinking_budget",
    "system",
    "source",
    "media_type",
    "data",
    "tool_use_id",
    "input_schema",
    "is_error",
    "stop_sequences",
    "output_config",
    "documents",
    "query",
    "top_n",
    "dimensions",
    "encoding_format",
    "tokens",
    "$ref",
    "$defs",
    "id_slot",
    "lora",
    "verbose",
    "truncation",
    "store",
]
WORDS = [
    "user",
    "assistant",
    "system",
    "tool",
    "developer",
    "text",
    "image_url",
    "function",
    "auto",
    "none",
    "required",
    "any",
    "allowed_tools",
    "input_text",
    "output_text",
    "function_call",
    "function_call_output",
    "message",
    "reasoning",
    "tool_use",
    "tool_result",
    "thinking",
    "image",
    "base64",
    "url",
    "json_schema",
    "json_object",
    "enabled",
    "disabled",
    "#/$defs/a",
]
ROLES = st.sampled_from(["user", "assistant", "system", "tool"])

values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-2, 9)
    | st.floats(allow_nan=False)
    | st.sampled_from(WORDS)
    | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(NAMES), inner, max_size=4),
    max_leaves=12,
)
objects = st.dictionaries(st.sampled_from(NAMES), values, max_size=5)
messages = st.lists(
    st.builds(lambda role, content, rest: rest | {"role": role, "content": content}, ROLES, values, objects),
    max_size=3,
)
tool_lists = st.lists(
    st.builds(
        lambda name, rest: {"type": "function", "function": rest | {"name": name}, "name": name},
        st.text(),
        objects,
    ),
    max_size=2,
)
bodies = st.builds(
    lambda rest, messages, tools: (
        rest | {"messages": messages, "tools": tools, "max_tokens": 1, "prompt": "x"}
    ),
    objects,
    messages,
    tool_lists,
)


def situations():
    for knows_tools in (False, True):
        yield Situation(
            a_model(), TemplateAbilities(knows_tools, system_role=knows_tools), lambda prefix: prefix, 0
        )


@settings(max_examples=300, deadline=None)  # other programs may hold this one up
@given(objects | bodies)
@pytest.mark.parametrize("path", GENERATIONS)
def test_any_body_is_prepared_or_refused(path, body):
    for situation in situations():
        with contextlib.suppress(RequestRefused):
            exchange = GENERATIONS[path].prepare(body, situation)
            assert exchange.body["stream"] is True
            assert not any(name in exchange.body for name in ("id_slot", "lora"))
            json.dumps(exchange.body)


@settings(max_examples=100, deadline=None)
@given(objects)
@pytest.mark.parametrize("path", FORWARDINGS)
def test_any_body_is_forwarded_or_refused(path, body):
    for model in (a_model(), a_model(pooling="rank")):
        with contextlib.suppress(RequestRefused):
            json.dumps(FORWARDINGS[path].prepare(body, model))


@given(objects | bodies)
def test_preparing_leaves_the_request_as_it_was(body):
    before = json.dumps(body)
    for situation in situations():
        for generation in GENERATIONS.values():
            with contextlib.suppress(RequestRefused):
                generation.prepare(body, situation)
    assert json.dumps(body) == before


def test_every_generation_has_its_own_path():
    assert set(GENERATIONS) & set(FORWARDINGS) == set()
    assert tools.concern({"messages": [{"role": "tool"}]})
