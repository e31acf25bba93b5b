"""Every family's parser understands what models of it write, however it is cut."""

import json
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesh_llm.engine.head.families import Family, Thinking
from mesh_llm.engine.head.parsing.deltas import CallArguments, CallBegin
from mesh_llm.engine.head.parsing.parsers import PARSERS, parser_of, preserved
from mesh_llm.engine.head.parsing.thinking import opening_of
from tests.engine.head.parsing.recordings import THINKING, Recording, answered, recordings

ALL = recordings()
WELL_FORMED = [recording for recording in ALL if not recording.values.get("lenient")]
BY_NAME = pytest.mark.parametrize("recording", ALL, ids=lambda recording: recording.name)


def check(recording: Recording, **changes) -> None:
    found = answered(recording.family, replace(recording.form, **changes), [recording.text])
    wanted = recording.values
    assert (found.content, found.reasoning) == (wanted["content"], wanted["reasoning"])
    assert [call["name"] for call in found.calls] == [call["name"] for call in wanted["calls"]]
    for number, (call, expected) in enumerate(zip(found.calls, wanted["calls"], strict=True)):
        assert call["id"] == expected.get("id", f"drawn-{number}")
        if "raw" in expected:
            assert call["arguments"] == expected["raw"]
        else:
            assert json.loads(call["arguments"]) == expected["arguments"]


@BY_NAME
def test_an_answer_is_understood(recording: Recording):
    check(recording)


@pytest.mark.parametrize("recording", WELL_FORMED, ids=lambda recording: recording.name)
def test_a_well_formed_answer_is_understood_while_it_comes(recording: Recording):
    check(recording, calls_are_sure=True)


@given(st.data())
def test_any_cut_of_an_answer_gives_the_same(data: st.DataObject):
    recording = data.draw(st.sampled_from(ALL))
    text = recording.text
    cuts = sorted(data.draw(st.sets(st.integers(0, len(text)))))
    pieces = [text[start:end] for start, end in zip([0, *cuts], [*cuts, len(text)], strict=True)]
    sure = data.draw(st.booleans())
    found = [
        answered(recording.family, replace(recording.form, calls_are_sure=sure), cut)
        for cut in ([text], pieces)
    ]
    assert found[0] == found[1]


def pieces_of(family: Family) -> st.SearchStrategy[str]:
    """Text that looks like the family's, in any disorder."""
    marks = sorted(preserved(family, THINKING.get(family)))
    mine = [recording.text for recording in ALL if recording.family is family]
    part = st.sampled_from(mine).flatmap(
        lambda text: st.tuples(st.integers(0, len(text)), st.integers(0, len(text))).map(
            lambda ends: text[min(ends) : max(ends)]
        )
    )
    return st.lists(st.one_of(part, st.sampled_from([*marks, "{", "}", '"', "\n", "a"])), max_size=8).map(
        "".join
    )


@given(st.data())
def test_disorder_is_understood_the_same_in_any_cut(data: st.DataObject):
    family = data.draw(st.sampled_from(sorted(PARSERS, key=str)))
    text = data.draw(pieces_of(family))
    sure, thinks = data.draw(st.booleans()), data.draw(st.booleans())
    recording = Recording(family, {"text": text, "thinks": thinks})
    form = replace(recording.form, calls_are_sure=sure)
    whole = answered(family, form, [text])
    assert answered(family, replace(recording.form, calls_are_sure=sure), text) == whole


@given(st.data())
def test_what_is_no_call_is_text_and_nothing_of_it_is_lost(data: st.DataObject):
    family = data.draw(st.sampled_from(sorted(set(PARSERS) - {Family.HARMONY, Family.GEMMA}, key=str)))
    text = data.draw(pieces_of(family))
    found = answered(family, Recording(family, {"thinks": False}).form, [text])
    if not found.calls:
        assert "".join(found.content.split()) == "".join(text.split())


@BY_NAME
def test_without_tools_calls_are_text(recording: Recording):
    found = answered(recording.family, replace(recording.form, tools=()), [recording.text])
    assert not found.calls


@pytest.mark.parametrize("recording", WELL_FORMED, ids=lambda recording: recording.name)
def test_no_mark_of_the_format_is_told(recording: Recording):
    found = answered(recording.family, recording.form, [recording.text])
    for mark in preserved(recording.family, recording.form.thinking):
        assert mark not in found.content + found.reasoning


def test_arguments_are_told_while_they_come_where_their_form_is_sure():
    recording = next(one for one in ALL if one.name == "hermes: code in an argument")
    parser = parser_of(Family.HERMES, replace(recording.form, calls_are_sure=True))
    told = parser.feed(recording.text[: len(recording.text) // 2])
    assert isinstance(told[0], CallBegin)
    assert len("".join(delta.text for delta in told if isinstance(delta, CallArguments))) > 20


def test_a_call_is_told_when_it_is_complete_where_its_form_is_not_sure():
    recording = next(one for one in ALL if one.name == "hermes: code in an argument")
    parser = parser_of(Family.HERMES, recording.form)
    assert parser.feed(recording.text[:-1]) == []
    assert isinstance(parser.feed(recording.text[-1:])[0], CallBegin)


def test_thoughts_are_content_where_the_client_asks_for_it():
    for family in (Family.HERMES, Family.GEMMA, Family.HARMONY):
        recording = next(one for one in ALL if one.name == f"{family.value}: thoughts and text")
        found = answered(family, replace(recording.form, thoughts_are_content=True), [recording.text])
        assert "Let me see." in found.content and not found.reasoning


def test_a_message_that_goes_on_has_no_thoughts_and_keeps_its_white_space():
    for family in set(PARSERS) - {Family.PLAIN}:
        form = replace(Recording(family, {"text": ""}).form, content_is_open=True)
        assert answered(family, form, [" and so on."]).content == " and so on."


def test_what_the_prompt_ends_with_belongs_to_the_answer_from_the_mark_of_thoughts_on():
    assert opening_of("<|assistant|>\n<think>\n", Thinking("<think>", "</think>")) == "<think>\n"
    assert opening_of("<|assistant|>\n", Thinking("<think>", "</think>")) == ""
    assert opening_of("<|assistant|>\n<think>", None) == ""


def test_thoughts_that_the_prompt_closed_are_none():
    form = replace(Recording(Family.HERMES, {"text": ""}).form, opening="<think>\n\n</think>\n\n")
    found = answered(Family.HERMES, form, ["Hello."])
    assert (found.content, found.reasoning) == ("Hello.", "")
