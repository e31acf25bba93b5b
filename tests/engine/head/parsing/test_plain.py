"""Answers without calls: thoughts and text."""

import itertools
from collections.abc import Iterable

import pytest

from mesh_llm.engine.head.families import Family, Thinking
from mesh_llm.engine.head.parsing.answer_parser import Form
from mesh_llm.engine.head.parsing.deltas import Content, Delta, Reasoning
from mesh_llm.engine.head.parsing.parsers import parser_of

THINK = Thinking("<think>", "</think>")


def parse(text: Iterable[str], **form) -> list[Delta]:
    drawn = itertools.count()
    parser = parser_of(Family.PLAIN, Form(identify=lambda: f"id-{next(drawn)}", **form))
    return [delta for piece in text for delta in parser.feed(piece)] + parser.finish()


@pytest.mark.parametrize("text", ["Hello", " Hello <think>no</think>\n", "<", ""])
def test_without_thoughts_everything_is_content(text: str):
    assert "".join(delta.text for delta in parse([text]) if isinstance(delta, Content)) == text


def test_thoughts_are_told_apart():
    assert parse(["<think>Hm.</think>Yes."], thinking=THINK) == [Reasoning("Hm."), Content("Yes.")]


def test_open_thoughts_need_no_mark():
    told = parse(["Hm.</think>Yes."], thinking=THINK, thinking_is_open=True)
    assert told == [Reasoning("Hm."), Content("Yes.")]


def test_what_may_be_a_mark_is_told_once_it_is_none():
    told = parse(["<think>a </thi", "s> b", "</think>c"], thinking=THINK)
    assert told == [Reasoning("a "), Reasoning("</this> b"), Content("c")]
