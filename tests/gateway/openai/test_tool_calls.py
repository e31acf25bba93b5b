import itertools
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesh_llm.gateway.openai.chat_answer import ChatAnswer
from mesh_llm.gateway.openai.tool_calls import CallRecogniser, ForcedCall

CALL = '{\n "name": "we\\"ather" ,"arguments" : {"city": "Pa}\\"ris", "days": [1, {"a": "]"}]}\n}  '
ARGUMENTS = {"city": 'Pa}"ris', "days": [1, {"a": "]"}]}
NAMES = frozenset(['we"ather'])

cuts = st.lists(st.integers(0, len(CALL)), max_size=8)


def identify(prefix, numbers=None):
    return f"{prefix}1"


def pieces_of(text, cuts):
    edges = [0, *sorted(min(cut, len(text)) for cut in cuts), len(text)]
    return [text[start:end] for start, end in itertools.pairwise(edges)]


def mended(mender, pieces, reason="stop", index=0):
    """What a client would put together from the mended chunks of one choice."""
    deltas = [{"content": piece} for piece in pieces]
    choices = [{"index": index, "delta": delta, "finish_reason": None} for delta in deltas]
    choices.append({"index": index, "delta": {}, "finish_reason": reason})
    answer = ChatAnswer("m")
    for choice in choices:
        for chunk in mender.feed({"id": "x", "choices": [choice]}):
            answer.feed(chunk)
    (whole,) = answer.answer()["choices"]
    return whole


@given(cuts)
def test_a_forced_call_is_read_however_its_text_is_cut(cuts):
    choice = mended(ForcedCall(identify), pieces_of(CALL, cuts))
    (call,) = choice["message"]["tool_calls"]
    assert call["id"] == "call_1"
    assert call["function"]["name"] == 'we"ather'
    assert json.loads(call["function"]["arguments"]) == ARGUMENTS
    assert choice["finish_reason"] == "tool_calls"
    assert choice["message"]["content"] is None


@given(cuts)
def test_a_call_in_a_free_reply_is_recognised_however_its_text_is_cut(cuts):
    choice = mended(CallRecogniser(NAMES, identify), pieces_of(CALL, cuts))
    (call,) = choice["message"]["tool_calls"]
    assert json.loads(call["function"]["arguments"]) == ARGUMENTS
    assert choice["finish_reason"] == "tool_calls"


@pytest.mark.parametrize("fence", ["```json\n{}\n```", "```{}```", "<tool_call>\n{}\n</tool_call>", " {} "])
def test_a_call_may_be_wrapped_as_models_like_to(fence):
    choice = mended(CallRecogniser(NAMES, identify), [fence.replace("{}", CALL)])
    assert choice["message"]["tool_calls"]


@given(st.lists(st.text(alphabet='{}"name: abc`<>', max_size=12), max_size=8))
def test_a_reply_that_is_no_call_is_not_altered(pieces):
    choice = mended(CallRecogniser(NAMES, identify), pieces)
    assert choice["message"]["content"] == "".join(pieces)
    assert choice["finish_reason"] == "stop"


def test_a_call_of_an_unknown_tool_is_text():
    text = '{"name": "launch", "arguments": {}}'
    assert mended(CallRecogniser(NAMES, identify), [text])["message"]["content"] == text


def test_plain_text_is_passed_on_at_once():
    mender = CallRecogniser(NAMES, identify)
    (chunk,) = mender.feed({"choices": [{"index": 0, "delta": {"content": "Well"}, "finish_reason": None}]})
    assert chunk["choices"][0]["delta"] == {"content": "Well"}


def test_arguments_cut_short_by_the_token_limit_keep_their_reason():
    choice = mended(ForcedCall(identify), ['{"name": "a", "arguments": {"x": 1'], reason="length")
    assert choice["finish_reason"] == "length"
    assert choice["message"]["tool_calls"][0]["function"]["arguments"] == '{"x": 1'


def test_reasoning_before_a_call_is_kept():
    mender = ForcedCall(identify)
    (chunk,) = mender.feed({"choices": [{"index": 0, "delta": {"reasoning_content": "hm"}}]})
    assert chunk["choices"][0]["delta"] == {"reasoning_content": "hm"}


def test_choices_are_read_apart():
    mender = ForcedCall(identify)
    first, second = pieces_of(CALL, [20])
    for piece in (first, second):
        for index in (0, 1):
            mender.feed({"choices": [{"index": index, "delta": {"content": piece}}]})
    out = mender.feed({"choices": [{"index": 1, "delta": {}, "finish_reason": "stop"}]})
    assert out[-1]["choices"][0]["finish_reason"] == "tool_calls"
