import pytest

from mesh_llm.core.errors import RequestRefused
from mesh_llm.gateway.exchange import TemplateAbilities
from mesh_llm.gateway.openai.tool_calls import CallRecogniser, ForcedCall
from mesh_llm.gateway.openai.tools import prepare

PLAIN = TemplateAbilities(tools=False, system_role=True)
NATIVE = TemplateAbilities(tools=True, system_role=True)
USER = {"role": "user", "content": "hi"}


def a_tool(name, **parameters):
    return {
        "type": "function",
        "function": {"name": name, "description": f"does {name}", "parameters": parameters},
    }


def a_request(choice=None, **fields):
    body = {"messages": [USER], "tools": [a_tool("walk"), a_tool("run", type="object")]}
    return body | ({"tool_choice": choice} if choice is not None else {}) | fields


def named(name):
    return {"type": "function", "function": {"name": name}}


def prepared(body, template=PLAIN):
    return prepare(body, template, lambda prefix: f"{prefix}1")


def test_a_request_without_tools_is_left_alone():
    body = {"messages": [USER]}
    assert prepared(body) == (body, [])


@pytest.mark.parametrize("choice", [None, "auto", "none"])
def test_a_template_that_knows_tools_gets_them_as_they_came(choice):
    body = a_request(choice)
    assert prepared(body, NATIVE) == (body, [])


@pytest.mark.parametrize("template", [PLAIN, NATIVE])
@pytest.mark.parametrize(("choice", "names"), [("required", ["walk", "run"]), (named("run"), ["run"])])
def test_an_enforced_call_is_asked_for_under_a_schema(template, choice, names):
    body, (mender,) = prepared(a_request(choice), template)
    assert "tools" not in body and "tool_choice" not in body
    schema = body["response_format"]["json_schema"]["schema"]
    assert [one["properties"]["name"]["const"] for one in schema["anyOf"]] == names
    assert all(place["type"] == "object" for place in schema["$defs"].values())
    assert isinstance(mender, ForcedCall)
    system = body["messages"][0]
    assert system["role"] == "system"
    assert ("walk" in system["content"]) == ("walk" in names)
    assert body["messages"][1:] == [USER]


def test_references_inside_a_tools_schema_still_hold():
    parameters = {
        "properties": {"a": {"$ref": "#/$defs/A"}, "self": {"$ref": "#"}},
        "$defs": {"A": {"enum": [1]}},
    }
    body, _ = prepared(a_request(named("fly"), tools=[a_tool("walk"), a_tool("fly", **parameters)]))
    place = body["response_format"]["json_schema"]["schema"]["$defs"]["tool0"]
    assert place["properties"] == {"a": {"$ref": "#/$defs/tool0/$defs/A"}, "self": {"$ref": "#/$defs/tool0"}}


def test_a_property_that_happens_to_be_called_ref_is_no_reference():
    parameters = {"properties": {"$ref": {"type": "string"}}}
    body, _ = prepared(a_request(named("fly"), tools=[a_tool("fly", **parameters)]))
    place = body["response_format"]["json_schema"]["schema"]["$defs"]["tool0"]
    assert place["properties"] == parameters["properties"]


def test_tools_are_described_to_a_template_that_knows_none():
    body, (mender,) = prepared(a_request("auto", messages=[{"role": "system", "content": "Be kind."}, USER]))
    assert "tools" not in body and "response_format" not in body
    assert body["messages"][0]["content"].startswith("Be kind.")
    assert "does walk" in body["messages"][0]["content"]
    assert isinstance(mender, CallRecogniser)


def test_a_template_without_a_system_role_is_told_in_the_users_words():
    body, _ = prepared(a_request(), TemplateAbilities(tools=False, system_role=False))
    (message,) = body["messages"]
    assert message["role"] == "user" and message["content"].endswith("hi")


def test_no_choice_means_no_tools():
    body, menders = prepared(a_request("none"))
    assert body == {"messages": [USER]} and menders == []


def test_allowed_tools_narrow_the_choice():
    allowed = {"type": "allowed_tools", "allowed_tools": {"mode": "auto", "tools": [named("run")]}}
    body, _ = prepared(a_request(allowed), NATIVE)
    assert [tool["function"]["name"] for tool in body["tools"]] == ["run"]
    assert body["tool_choice"] == "auto"
    allowed["allowed_tools"]["mode"] = "required"
    body, _ = prepared(a_request(allowed), NATIVE)
    assert len(body["response_format"]["json_schema"]["schema"]["anyOf"]) == 1


@pytest.mark.parametrize(
    "wrong",
    [
        {"tool_choice": "perhaps"},
        {"tool_choice": named("fly")},
        {"tool_choice": {"type": "custom"}},
        {"tools": [], "tool_choice": "required"},
        {"tools": [{"type": "web_search"}]},
        {"tools": [{"type": "function", "function": {}}]},
        {"tools": "walk"},
        {"tool_choice": "required", "response_format": {"type": "json_object"}},
        {"tool_choice": "required", "grammar": "root ::= x"},
        {"logprobs": True},
    ],
)
@pytest.mark.parametrize("template", [PLAIN, NATIVE])
def test_what_cannot_be_meant_is_refused(wrong, template):
    with pytest.raises(RequestRefused):
        prepared(a_request(**wrong) | wrong, template)
