"""Refusals as the head tells them, and as the gateway reads them."""

import json
from typing import Any

import pytest

from mesh_llm.core.errors import EngineFailed, RequestRefused, Unavailable
from mesh_llm.engine.head.chunks import AnswerForm, ContextExceeded, error_json
from mesh_llm.engine.head.generation import Timings
from mesh_llm.gateway.errors import openai_shape, read_engine_error


def test_a_refusal_names_its_field_and_its_reason_beside_what_llama_server_says():
    refused = RequestRefused("no", code="invalid_value", parameter="n")
    assert error_json(refused) == {
        "code": 400,
        "message": "no",
        "type": "invalid_request_error",
        "param": "n",
        "error_code": "invalid_value",
    }


@pytest.mark.parametrize(
    "error",
    [
        RequestRefused("`n` must be 1.", code="invalid_value", parameter="n"),
        RequestRefused("no"),
        ContextExceeded(9, 8),
        Unavailable("Later", retry_after_s=7),
        EngineFailed("it burnt"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_what_the_head_refuses_is_what_a_client_is_told(error):
    body = json.dumps({"error": error_json(error)}).encode()
    read = read_engine_error(error.http_status, body)
    assert read.http_status == error.http_status and str(error) in str(read)
    shape = openai_shape(read)["error"]
    if isinstance(error, ContextExceeded):
        assert (shape["code"], shape["n_prompt_tokens"], shape["n_ctx"]) == ("context_length_exceeded", 9, 8)
    elif isinstance(error, RequestRefused):
        assert (shape["code"], shape["param"]) == (error.code, error.parameter)
    if isinstance(error, Unavailable):
        assert isinstance(read, Unavailable) and read.retry_after_s == 7


TIMINGS = Timings(7, 3, 1.0, 1.0)


def events(data: bytes) -> list[Any]:
    return [json.loads(part.removeprefix(b"data: ")) for part in data.split(b"\n\n") if part]


def test_the_first_chunk_tells_the_prompts_length_if_it_was_asked_for():
    (told,) = events(AnswerForm("chat", "m", "i", 1, prompt_told=7).begin(0))
    assert told["prompt_progress"] == {"total": 7, "processed": 7}
    (quiet,) = events(AnswerForm("chat", "m", "i", 1).begin(0))
    assert "prompt_progress" not in quiet and quiet["system_fingerprint"]


@pytest.mark.parametrize("route", ["chat", "text"])
def test_the_last_chunk_names_the_stop_string_if_it_was_asked_for(route):
    form = AnswerForm(route, "m", "i", 1, is_verbose=True)
    (last, *_) = events(form.end(0, "stop", TIMINGS, include_usage=False, stop="!"))
    assert last["__verbose"]["stopping_word"] == "!"
    (last, *_) = events(AnswerForm(route, "m", "i", 1).end(0, "stop", TIMINGS, include_usage=False, stop="!"))
    assert "__verbose" not in last
