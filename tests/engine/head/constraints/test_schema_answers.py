"""A small model's answers to schemas, and what a head does with grammars that would harm it."""

import json
import os
import re

import pytest

from tests.engine.head.heads import client, kept, lone_head

pytestmark = pytest.mark.real

ANSWERS = int(os.environ.get("MESH_LLM_PROMPTS", "2"))
"""To each of ten schemas: 20 make two hundred."""


@pytest.fixture(scope="module")
def head(smollm2):
    with kept(lambda: lone_head(smollm2)) as endpoint:
        yield endpoint


@pytest.fixture
async def ours(head):
    async with client(head) as one:
        yield one


def text(length=20):
    return {"type": "string", "maxLength": length}


def thing(properties, **more):
    return {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
        **more,
    }


def is_text(value, length=20):
    return isinstance(value, str) and len(value) <= length


def is_whole(value):
    return isinstance(value, int) and not isinstance(value, bool)


TREE = {
    "$defs": {
        "node": thing({"name": text(6), "left": {"anyOf": [{"$ref": "#/$defs/leaf"}, {"type": "null"}]}})
    }
    | {"leaf": thing({"name": text(6)})},
    "$ref": "#/$defs/node",
}

SCHEMAS = {
    "a person": (
        thing({"name": text(), "age": {"type": "integer", "minimum": 0, "maximum": 150}}),
        lambda v: (
            set(v) == {"name", "age"} and is_text(v["name"]) and is_whole(v["age"]) and 0 <= v["age"] <= 150
        ),
    ),
    "a colour": (
        {"enum": ["red", "green", "blue", 7, None]},
        lambda v: v in ["red", "green", "blue", 7, None],
    ),
    "three numbers": (
        {
            "type": "array",
            "items": {"type": "integer", "maximum": 999, "minimum": 0},
            "minItems": 3,
            "maxItems": 3,
        },
        lambda v: len(v) == 3 and all(is_whole(one) and 0 <= one <= 999 for one in v),
    ),
    "a date": (
        thing({"date": {"type": "string", "format": "date"}}),
        lambda v: re.fullmatch(r"\d{4}-\d\d-\d\d", v["date"]) is not None,
    ),
    "a code": (
        thing({"code": {"type": "string", "pattern": "^[A-Z]{2}-[0-9]{3}$"}}),
        lambda v: re.fullmatch(r"[A-Z]{2}-[0-9]{3}", v["code"]) is not None,
    ),
    "yes or no": (thing({"sure": {"type": "boolean"}}), lambda v: isinstance(v["sure"], bool)),
    "a city or nothing": (
        {"anyOf": [thing({"city": text()}), {"type": "null"}]},
        lambda v: v is None or (set(v) == {"city"} and is_text(v["city"])),
    ),
    "a tree": (
        TREE,
        lambda v: is_text(v["name"], 6) and (v["left"] is None or is_text(v["left"]["name"], 6)),
    ),
    "a constant": (
        thing(
            {
                "kind": {"const": "cat"},
                "lives": {"type": "integer", "multipleOf": 3, "maximum": 99, "minimum": 0},
            }
        ),
        lambda v: v["kind"] == "cat" and v["lives"] % 3 == 0,
    ),
    "a pair": (
        {"type": "array", "prefixItems": [text(8), {"type": "boolean"}], "items": False, "minItems": 2},
        lambda v: len(v) == 2 and is_text(v[0], 8) and isinstance(v[1], bool),
    ),
}


@pytest.mark.parametrize("name", SCHEMAS)
async def test_every_answer_is_valid_by_its_schema(ours, name):
    schema, is_valid = SCHEMAS[name]
    for seed in range(ANSWERS):
        status, answer = await ours.post(
            "/v1/chat/completions",
            {
                "messages": [{"role": "user", "content": f"Give me {name}, as JSON."}],
                "response_format": {"type": "json_schema", "json_schema": {"name": "it", "schema": schema}},
                "seed": seed,
                "max_tokens": 200,
            },
        )
        assert status == 200, answer
        choice = answer["choices"][0]
        assert choice["finish_reason"] == "stop", choice
        assert is_valid(json.loads(choice["message"]["content"])), choice


@pytest.mark.parametrize(
    "wanted",
    [
        {"grammar": 'root ::= nothing root | "x"\nnothing ::= empty\nempty ::= ""'},
        {"grammar": "root ::= " + "(" * 5000 + '"x"' + ")" * 5000},
        {"grammar": "%llguidance {}\nstart: " + "(" * 5000},
        {"json_schema": {"type": "integer", "multipleOf": 1_234_567}},
        {"json_schema": {"$ref": "https://example.org/schema.json"}},
        {"json_schema": {"description": "x" * 70_000}},
    ],
)
async def test_a_grammar_that_would_harm_is_refused(ours, wanted):
    status, answer = await ours.post("/v1/completions", {"prompt": "x", "max_tokens": 4} | wanted)
    assert (status, answer["error"]["type"]) == (400, "invalid_request_error")


async def test_an_answer_that_can_be_read_in_ever_more_ways_is_broken_off_and_others_go_on(ours):
    blank = (await ours.post("/tokenize", {"content": " "}))[1]["tokens"][-1]
    status, answer = await ours.post(
        "/v1/completions",
        {
            "prompt": "x",
            "grammar": 'root ::= s\ns ::= " " s "a" | " " s "b" | "z"',
            "logit_bias": [[blank, 100]],
            "max_tokens": 64,
        },
    )
    assert status == 400 and "too many ways" in answer["error"]["message"]
    assert await ours.text("The capital of France is", max_tokens=4)


async def test_chains_of_a_thousand_definitions_are_read(ours):
    chain = {f"a{i}": {"properties": {"x": {"$ref": f"#/$defs/a{i + 1}"}}} for i in range(1000)}
    schema = {"$defs": chain | {"a1000": {"const": 1}}, "$ref": "#/$defs/a0", "type": "object"}
    status, answer = await ours.post(
        "/v1/completions", {"prompt": "x", "json_schema": schema, "max_tokens": 2}
    )
    assert status in (200, 400), answer
    assert await ours.text("x", json_schema={"const": 1}) == "1"
