"""Answers of a schema may stand where models of a family put them: asked of llguidance itself."""

from dataclasses import replace

import pytest

from mesh_llm.engine.head.constraints.wishes import json_wish
from mesh_llm.engine.head.families import Family
from mesh_llm.engine.head.parsing.parsers import PARSERS
from mesh_llm.engine.head.parsing.schema_grammar import Fencing, fencing_of, schema_grammar
from tests.engine.head.parsing.recordings import Recording
from tests.engine.head.parsing.test_call_grammar import refused_at

SCHEMA = json_wish(
    {
        "type": "object",
        "properties": {"a": {"type": "integer"}, "b": {"type": "boolean"}},
        "required": ["a"],
        "additionalProperties": False,
    }
).schema
ANSWER = '{\n  "a": 1,\n  "b": true\n}'
FENCED = f"```json\n{ANSWER}\n```"
FINAL = "<|channel|>final<|message|>"


def refused(family: Family, text: str, **changes) -> int | None:
    form = replace(Recording(family, {"text": ""}).form, thinking=None, tools=())
    wish = schema_grammar(family, replace(form, **changes), SCHEMA, control={})
    assert wish.schema == SCHEMA and not wish.triggers
    return refused_at(wish.grammar, text)


@pytest.mark.parametrize("family", sorted(PARSERS, key=str), ids=str)
def test_an_answer_stands_in_a_fence_where_models_of_its_family_write_one(family: Family):
    before = FINAL if family is Family.HARMONY else ""
    fencing = fencing_of(family)
    assert (refused(family, before + ANSWER) is None) == (fencing is not Fencing.ALWAYS)
    assert (refused(family, before + FENCED) is None) == (fencing is not Fencing.NEVER)


@pytest.mark.parametrize(
    "text",
    [
        f"  \n{ANSWER}",
        f"\n\n   {ANSWER}\n\n",
        f" \n```json{ANSWER}```",
        '{"a":1}',
        '{ "a" : 1, "b" : true }',
    ],
)
def test_some_white_space_may_stand_around_the_parts(text: str):
    assert refused(Family.PLAIN, text) is None


@pytest.mark.parametrize(
    ("text", "passed"),
    [
        ("Sure: {", 0),
        ("    {", 3),
        ('{"a":  1}', 6),
        (ANSWER + "\n\n\n", len(ANSWER) + 2),
        ("```json\n" + ANSWER, len(ANSWER) + 8),
        (FENCED + "\n", len(FENCED)),
        ('{"c": 1}', 2),
    ],
)
def test_nobody_stays_in_white_space_or_says_more(text: str, passed: int):
    assert refused(Family.PLAIN, text) == passed


def test_thoughts_come_before_as_the_prompt_lets_them():
    thinking = Recording(Family.HERMES, {"text": ""}).form.thinking

    def passes(text: str, **changes) -> bool:
        return refused(Family.HERMES, text, thinking=thinking, **changes) is None

    thought = "hm {\n</think>\n\n"
    assert passes(ANSWER) and passes("<think>\n" + thought + FENCED)
    assert passes(thought + ANSWER, thinking_is_open=True) and not passes(ANSWER, thinking_is_open=True)
    assert passes(ANSWER, opening="<think>\n\n</think>\n\n")
    assert not passes("<think>\n" + thought + ANSWER, opening="<think>\n\n</think>\n\n")


def test_gpt_oss_thinks_in_its_channel_and_answers_in_another():
    analysis = "<|channel|>analysis<|message|>Red, green?<|end|><|start|>assistant"
    assert refused(Family.HARMONY, analysis + FINAL + ANSWER) is None
    assert refused(Family.HARMONY, f"<|channel|>final <|constrain|>json<|message|>{ANSWER}") is None
    assert refused(Family.HARMONY, ANSWER) == 0


def test_a_message_that_goes_on_has_nothing_around_it():
    assert refused(Family.PLAIN, ANSWER, content_is_open=True) is None
    assert refused(Family.PLAIN, FENCED, content_is_open=True) == 0
