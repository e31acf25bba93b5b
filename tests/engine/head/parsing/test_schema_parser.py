"""Of an answer of a schema its JSON is told, however it is cut, and nothing that is not around it is lost."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesh_llm.engine.head.families import Family, Thinking
from mesh_llm.engine.head.parsing.answer_parser import Form
from mesh_llm.engine.head.parsing.deltas import Content, Reasoning
from mesh_llm.engine.head.parsing.parsers import parser_of
from mesh_llm.engine.head.parsing.schema_parser import SchemaParser

THINKING = Thinking("<think>\n", "\n</think>\n\n")

ANSWERS = {
    '{"a": 1}': '{"a": 1}',
    "  \n{}\n\n  ": "{}",
    '```json\n{\n  "a": [1, 2]\n}\n```': '{\n  "a": [1, 2]\n}',
    '\n```json{"fence": "```"}```': '{"fence": "```"}',
    '"```json"': '"```json"',
    "```json\n-12.5e3\n```": "-12.5e3",
    "null": "null",
    # cut off
    '```json\n{"a": ': '{"a": ',
    '{"a": "x\n'[:-1] + "  ": '{"a": "x  ',
    '{"a": 12': '{"a": 12',
    '{"a": tr': '{"a": tr',
    "```js": "```js",
    "": "",
    # no JSON
    "Sure: ```json": "Sure: ```json",
    '{"a": 1} and more': '{"a": 1}and more',
    "[1, x]\n```": "[1, x]\n```",
}


def told(pieces, *, form: Form | None = None, thinking: Thinking | None = None) -> tuple[str, str]:
    """(thoughts, content)."""
    form = form or Form(str, thinking=THINKING)
    parser = SchemaParser(parser_of(Family.HERMES, form), thinking)
    deltas = [delta for piece in pieces for delta in parser.feed(piece)] + parser.finish()
    return (
        "".join(delta.text for delta in deltas if isinstance(delta, Reasoning)),
        "".join(delta.text for delta in deltas if isinstance(delta, Content)),
    )


@pytest.mark.parametrize("text", ANSWERS)
def test_what_stands_around_the_json_is_left_out(text: str):
    assert told([text]) == ("", ANSWERS[text])


@given(st.sampled_from(sorted(ANSWERS)), st.booleans())
def test_letter_by_letter_it_is_the_same(text: str, thinks: bool):
    whole = ("<think>\nhm {\n</think>\n\n" if thinks else "") + text
    assert told(whole) == ("hm {\n" if thinks else "", ANSWERS[text])


@given(st.text('{}[]"`:, \\\nabc12', max_size=30))
def test_any_text_is_told_the_same_in_any_cut_and_but_for_what_stands_around_it_whole(text: str):
    thoughts, content = told([text])
    assert told(text) == (thoughts, content)
    assert not thoughts
    assert bare(content) == bare(text)


def bare(text: str) -> str:
    return "".join(text.split()).replace("```json", "").replace("`", "")


def test_thoughts_that_shall_be_content_stay_before_it():
    form = Form(str, thinking=THINKING, thoughts_are_content=True)
    text = "<think>\nhm\n</think>\n\n```json\n{}\n```"
    assert told(text, form=form, thinking=THINKING) == ("", "<think>\nhm\n</think>{}")


def test_json_is_told_while_it_comes():
    parser = SchemaParser(parser_of(Family.PLAIN, Form(str)))
    assert parser.feed('```json\n{"a": "x') == [Content('{"a": "x')]
    assert parser.feed('yz"}\n``') == [Content('yz"}')]
    assert parser.finish() == []
