import json

import pytest

from mesh_llm.core.errors import RequestRefused
from mesh_llm.engine.head.constraints.wishes import Wish, read_wish

SCHEMA = {"type": "object", "properties": {"b": {"type": "integer"}, "a": {"type": "string"}}}
START = "%llguidance {}\nstart: %json "


def schema_of(body):
    wish = read_wish(body)
    assert wish is not None and not wish.triggers
    assert wish.grammar == START + wish.schema
    schema = json.loads(wish.schema)
    assert "whitespace_pattern" in schema.pop("x-guidance")
    return schema


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"response_format": None, "grammar": None, "json_schema": None},
        {"response_format": {"type": "text"}, "grammar": ""},
        {"response_format": {}},
    ],
)
def test_who_asks_for_nothing_gets_any_text(body):
    assert read_wish(body) is None


@pytest.mark.parametrize(
    "body",
    [
        {"json_schema": SCHEMA},
        {"response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": SCHEMA}}},
        {"response_format": {"type": "json_object", "schema": SCHEMA}},
        {"response_format": {"type": "json_object"}, "json_schema": SCHEMA},
    ],
)
def test_a_schema_is_found_wherever_llama_server_finds_it_with_its_order(body):
    found = schema_of(body)
    assert found == SCHEMA
    assert list(found["properties"]) == ["b", "a"]


@pytest.mark.parametrize(
    "body",
    [
        {"response_format": {"type": "json_object"}},
        {"response_format": {"type": "json_schema"}},
        {"json_schema": {}},
    ],
)
def test_no_schema_means_any_object(body):
    assert schema_of(body) == {"type": "object"}


def test_a_grammar_is_taken_as_it_is():
    assert read_wish({"grammar": 'root ::= "a"'}) == Wish('root ::= "a"')


@pytest.mark.parametrize(
    ("body", "parameter"),
    [
        ({"grammar": 'root ::= "a"', "json_schema": SCHEMA}, "grammar"),
        ({"grammar": 1}, "grammar"),
        ({"response_format": "json_object"}, "response_format"),
        ({"response_format": {"type": "xml"}}, "response_format"),
        ({"response_format": {"type": ["text"]}}, "response_format"),
        ({"response_format": {"type": "json_schema", "json_schema": []}}, "response_format"),
        ({"json_schema": "object"}, "json_schema"),
    ],
)
def test_what_is_no_form_is_refused_with_its_field(body, parameter):
    with pytest.raises(RequestRefused) as refused:
        read_wish(body)
    assert refused.value.parameter == parameter
