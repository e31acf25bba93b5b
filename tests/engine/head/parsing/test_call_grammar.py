"""Grammars of calls let pass what the parsers understand, and nothing else: asked of llguidance itself."""

from dataclasses import replace

import pytest
from llguidance import LLMatcher, LLTokenizer

from mesh_llm.engine.head.families import Family
from mesh_llm.engine.head.parsing.answer_parser import Form
from mesh_llm.engine.head.parsing.call_grammar import FORMS, call_grammar
from mesh_llm.engine.head.parsing.parsers import preserved
from mesh_llm.engine.head.parsing.tools import Tool
from tests.engine.head.parsing.recordings import TOOLS, Recording, recordings

BYTES = LLTokenizer("byte")
CALLS = [
    recording
    for recording in recordings()
    if recording.values["calls"]
    and not recording.values.get("lenient")
    and "raw" not in recording.values["calls"][0]
]


def refused_at(grammar: str, text: str) -> int | None:
    """Bytes that pass; None: all, and the answer may end there."""
    error = LLMatcher.validate_grammar(grammar, BYTES)
    assert not error, f"{error}\n{grammar}"
    matcher = LLMatcher(BYTES, grammar)
    passed = matcher.try_consume_tokens(list(text.encode()))
    return None if passed == len(text.encode()) and matcher.is_accepting() else passed


@pytest.mark.parametrize(
    "recording",
    [one for one in CALLS if one.family is not Family.LLAMA3],
    ids=lambda recording: recording.name,
)
def test_what_a_family_writes_after_a_trigger_passes(recording: Recording):
    wish = call_grammar(recording.family, recording.form, "auto", control={}, parallel=True)
    assert wish is not None
    begins = [recording.text.find(trigger.text) for trigger in wish.triggers if trigger.kind == "word"]
    if recording.family is Family.HARMONY:
        begins = [recording.text.rindex("assistant") + len("assistant")]
    begin = min(begin for begin in begins if begin >= 0)
    assert refused_at(wish.grammar, recording.text[begin:]) is None


@pytest.mark.parametrize(
    "recording",
    [one for one in CALLS if not one.values["content"] and "ends thoughts" not in one.name],
    ids=lambda recording: recording.name,
)
def test_what_a_family_writes_passes_from_the_beginning_where_a_call_is_required(recording: Recording):
    wish = call_grammar(recording.family, recording.form, "required", control={}, parallel=True)
    assert wish is not None and not wish.triggers
    assert refused_at(wish.grammar, recording.text) is None


@pytest.mark.parametrize("family", sorted(FORMS, key=str), ids=str)
def test_a_call_that_is_required_is_not_left_out(family: Family):
    form = replace(Recording(family, {"text": ""}).form, thinking=None)
    wish = call_grammar(family, form, "required", control={}, parallel=True)
    assert wish is not None
    assert refused_at(wish.grammar, "Hello, world.") == 0
    assert refused_at(wish.grammar, "") == 0


def test_no_thought_begins_before_a_required_call_where_the_prompt_has_ended_them():
    """A template that closes the thinking itself, as those of Qwen do without it."""
    form = Recording(Family.HERMES, {"text": ""}).form
    call = '<tool_call>\n{"name": "now", "arguments": {}}\n</tool_call>'
    thought = f"<think>\nhm\n</think>\n\n{call}"

    def refused(form: Form, text: str) -> int | None:
        wish = call_grammar(Family.HERMES, form, "required", control={}, parallel=True)
        assert wish is not None
        return refused_at(wish.grammar, text)

    free = replace(form, opening="", thinking_is_open=False)
    assert refused(free, thought) is None and refused(free, call) is None
    begun = replace(form, opening="<think>\n", thinking_is_open=True)
    assert refused(begun, f"hm\n</think>\n\n{call}") is None
    ended = replace(form, opening="<think>\n\n</think>\n\n", thinking_is_open=False)
    assert refused(ended, call) is None
    assert refused(ended, thought) == len("<t")  # where a call would go on with `tool_call>`


@pytest.mark.parametrize("family", sorted(set(FORMS) - {Family.GEMMA}, key=str), ids=str)
def test_arguments_keep_to_their_schema(family: Family):
    recording = next(
        one for one in CALLS if one.family is family and one.values["calls"][0]["name"] == "get_weather"
    )
    properties = {"town": {"type": "string"}}
    strict = {"type": "object", "properties": properties, "additionalProperties": False}
    form = replace(recording.form, tools=(Tool("get_weather", strict), *TOOLS[1:]))
    wish = call_grammar(family, form, "required", control={}, parallel=True)
    assert wish is not None
    assert refused_at(wish.grammar, recording.text) is not None


def test_one_call_only_where_they_may_not_be_parallel():
    two = next(one for one in CALLS if one.name == "hermes: two calls")
    wish = call_grammar(Family.HERMES, two.form, "auto", control={}, parallel=False)
    assert wish is not None
    assert refused_at(wish.grammar, two.text) is not None


def test_definitions_of_a_schema_are_found_from_its_arguments():
    tool = Tool(
        "paint",
        {
            "type": "object",
            "properties": {"size": {"$ref": "#/$defs/size"}},
            "required": ["size"],
            "$defs": {"size": {"type": "integer", "minimum": 1}},
        },
    )
    form = replace(Recording(Family.GLM, {"text": "", "thinks": False}).form, tools=(tool,))
    wish = call_grammar(Family.GLM, form, "auto", control={}, parallel=True)
    assert wish is not None
    call = "<tool_call>paint<arg_key>size</arg_key><arg_value>{}</arg_value></tool_call>"
    assert refused_at(wish.grammar, call.format("3")) is None
    assert refused_at(wish.grammar, call.format("0")) is not None
    assert refused_at(wish.grammar, call.format("big")) is not None


def test_calls_without_a_mark_are_left_free():
    form = Recording(Family.LLAMA3, {"text": ""}).form
    assert call_grammar(Family.LLAMA3, form, "auto", control={}, parallel=True) is None


def test_plain_answers_have_no_calls():
    form = Recording(Family.PLAIN, {"text": ""}).form
    assert call_grammar(Family.PLAIN, form, "required", control={}, parallel=True) is None


@pytest.mark.parametrize("family", sorted(FORMS, key=str), ids=str)
def test_control_tokens_are_named_by_their_number(family: Family):
    form = Recording(family, {"text": ""}).form
    control = {mark: 7 + number for number, mark in enumerate(sorted(preserved(family, form.thinking)))}
    wish = call_grammar(family, form, "required", control=control, parallel=True)
    assert wish is not None
    assert not LLMatcher.validate_grammar(wish.grammar, BYTES), wish.grammar
    assert not any(f'"{mark}"' in wish.grammar for mark in control)
