import json

import pytest

from mesh_llm.core.errors import RequestRefused
from mesh_llm.gateway.openai.completions import exchange, read_prompts
from mesh_llm.gateway.translation import Mended
from tests.gateway.engine import a_model


def a_score(token, *rivals):
    return {"token": token, "logprob": -0.5, "top_logprobs": [{"token": r, "logprob": -1.0} for r in rivals]}


def a_chunk(text, index=0, reason=None, scores=None):
    logprobs = None if scores is None else {"content": scores}
    return {
        "id": "c",
        "choices": [{"text": text, "index": index, "logprobs": logprobs, "finish_reason": reason}],
    }


def answered(body, *chunks):
    plan = exchange(body, a_model())
    translation = Mended(plan)
    for chunk in chunks:
        translation.feed(b"data: " + json.dumps(chunk).encode() + b"\n\n")
    translation.finish()
    return plan.writer.answer()["choices"]


def test_a_plain_stream_passes_untouched():
    assert exchange({"prompt": "x", "stream": True}, a_model()).untouched
    for more in ({"n": 2}, {"prompt": ["x", "y"]}, {"echo": True}, {"logprobs": 1}, {"stream": False}):
        assert not exchange({"prompt": "x", "stream": True} | more, a_model()).untouched


def test_each_choice_echoes_its_own_prompt():
    body = {"prompt": ["one ", "two "], "n": 2, "echo": True}
    chunks = [a_chunk(str(index), index, "stop") for index in (3, 0, 2, 1)] + [a_chunk("!", 0)]
    assert [choice["text"] for choice in answered(body, *chunks)] == ["one 0!", "one 1", "two 2", "two 3"]


def test_log_probabilities_become_four_lists():
    chunks = [
        a_chunk("ab", scores=[a_score("a", "x"), a_score("b", "y")]),
        a_chunk("c", scores=[a_score("c", "z")]),
    ]
    (choice,) = answered({"prompt": "p", "logprobs": 1}, *chunks, a_chunk("", reason="stop"))
    assert choice["logprobs"] == {
        "tokens": ["a", "b", "c"],
        "token_logprobs": [-0.5, -0.5, -0.5],
        "top_logprobs": [{"x": -1.0}, {"y": -1.0}, {"z": -1.0}],
        "text_offset": [0, 1, 2],
    }


def test_log_probabilities_without_rivals_have_none():
    plan = exchange({"prompt": "p", "logprobs": 0}, a_model())
    assert plan.body["logprobs"] == 1  # the engine takes 0 for no log probabilities at all
    (choice,) = answered({"prompt": "p", "logprobs": 0}, a_chunk("a", scores=[a_score("a", "x")]))
    assert choice["logprobs"]["top_logprobs"] is None and choice["logprobs"]["tokens"] == ["a"]


@pytest.mark.parametrize(
    ("prompt", "expected"),
    [("x", ["x"]), ([1, 2], [[1, 2]]), (["x", "y"], ["x", "y"]), ([[1], "x"], [[1], "x"])],
)
def test_prompts_come_in_four_forms(prompt, expected):
    assert read_prompts({"prompt": prompt}) == expected


@pytest.mark.parametrize("prompt", [None, [], 7, {}, [[]], [None], [True], [-1], [[1, "x"]]])
def test_anything_else_is_no_prompt(prompt):
    with pytest.raises(RequestRefused, match="prompt"):
        read_prompts({"prompt": prompt})
