import json

import pytest

from mesh_llm.engine.head.choices import Choice, Verbatim, together
from mesh_llm.engine.head.chunks import LOWEST, AnswerForm
from mesh_llm.engine.head.generation import Ended, Scored, Timings, Told
from mesh_llm.engine.head.parsing.deltas import CallArguments, CallBegin, Content, Reasoning
from mesh_llm.engine.llama.probabilities import Probabilities

TIMINGS = Timings(5, 3, 1.0, 2.0)
PIECES = {1: b"a", 2: b" b", 3: "\u20ac".encode()[:2]}


class Scripted:
    """Tells one list of deltas for each text, and the last at the end."""

    def __init__(self, *script):
        self.script = list(script)

    def feed(self, _text):
        return self.script.pop(0)

    def finish(self):
        return self.script.pop(0)


def choice_of(route="chat", parser=None, **more):
    form = AnswerForm(route, "m", "id", 7)
    return Choice(0, 0, form, parser or Verbatim(), PIECES.__getitem__, **more)


def events(stream: bytes):
    return [json.loads(line.removeprefix(b"data: ")) for line in stream.split(b"\n\n") if line]


def deltas(stream: bytes):
    return [choice["delta"] for event in events(stream) for choice in event["choices"]]


def test_calls_and_thoughts_are_told_in_their_own_fields_and_end_with_a_reason_of_their_own():
    choice = choice_of(
        parser=Scripted(
            [Reasoning("hm")],
            [Content("x"), CallBegin(0, "id7", "f")],
            [CallArguments(0, '{"a":'), CallArguments(0, "1}")],
            [],
        )
    )
    out = b"".join(choice.chunks(Told(1, "...")) for _ in range(3))
    out += choice.last_chunks(Ended(1, "stop", TIMINGS), include_usage=False)
    begin = {"index": 0, "id": "id7", "type": "function", "function": {"name": "f", "arguments": ""}}
    assert deltas(out) == [
        {"role": "assistant", "content": None},
        {"reasoning_content": "hm"},
        {"content": "x"},
        {"tool_calls": [begin]},
        {"tool_calls": [{"index": 0, "function": {"arguments": '{"a":'}}]},
        {"tool_calls": [{"index": 0, "function": {"arguments": "1}"}}]},
        {},
    ]
    assert events(out)[-1]["choices"][0]["finish_reason"] == "tool_calls"
    message = choice.as_json()["message"]
    assert (message["content"], message["reasoning_content"]) == ("x", "hm")
    assert message["tool_calls"][0]["function"] == {"name": "f", "arguments": '{"a":1}'}


def test_a_call_that_was_cut_off_by_length_is_told_so():
    choice = choice_of(parser=Scripted([CallBegin(0, "i", "f")], []))
    choice.add(Told(1, ""))
    choice.finish(Ended(1, "length", TIMINGS), 0)
    assert choice.as_json()["finish_reason"] == "length"


def scored(token: int, share: float) -> Scored:
    return Scored(token, Probabilities(share, ((1, 0.5), (3, 0.0))))


def test_probabilities_become_logarithms_and_half_a_character_is_shown_in_bytes_only():
    choice = choice_of("text")
    choice.add(Told(1, "a", scored(1, 0.5)))
    choice.finish(Ended(1, "stop", TIMINGS), 0)
    (score,) = choice.as_json()["logprobs"]["content"]
    assert score["logprob"] == pytest.approx(-0.6931472)
    assert (score["id"], score["token"], score["bytes"]) == (1, "a", [97])
    other = score["top_logprobs"][1]
    assert (other["token"], other["bytes"], other["logprob"]) == ("", [0xE2, 0x82], LOWEST)


def test_after_the_samplers_they_stay_shares():
    choice = choice_of("text", tells_as_sampled=True)
    (event,) = events(choice.chunks(Told(1, "a", scored(1, 0.25))))
    (score,) = event["choices"][0]["logprobs"]["content"]
    assert score["prob"] == 0.25 and score["top_probs"][0]["prob"] == 0.5


def test_scores_of_what_a_stop_string_took_are_left_out():
    choice = choice_of("text")
    for text in ("a", "", ""):
        choice.add(Told(1, text, scored(1, 0.5)))
    choice.finish(Ended(1, "stop", TIMINGS, " b"), tokens_of_stop=2)
    assert len(choice.as_json()["logprobs"]["content"]) == 1


def test_scores_go_with_the_last_delta_of_their_token():
    choice = choice_of(parser=Scripted([Content("x"), Content("y")], [], []))
    told = events(choice.chunks(Told(1, "", scored(1, 0.5))))
    assert ["logprobs" in event["choices"][0] for event in told] == [False, False, True]
    assert choice.chunks(Told(1, "", scored(1, 0.5))) == b""


def test_each_prompt_counts_once_and_each_answer():
    choices = [choice_of("text") for _ in range(4)]
    for index, choice in enumerate(choices):
        choice.index, choice.prompt = index, index // 2
        choice.finish(Ended(index, "stop", Timings(10, 3, 1.0, float(index), cached_tokens=4)), 0)
    assert together(choices) == Timings(20, 12, 1.0, 3.0, cached_tokens=8)
