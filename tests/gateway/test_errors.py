import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesh_llm.core.errors import ModelNotFound, Unavailable
from mesh_llm.gateway.errors import anthropic_shape, openai_shape, read_engine_error


def told(message, kind="server_error", **numbers):
    return json.dumps({"error": {"code": 0, "message": message, "type": kind} | numbers}).encode()


def test_a_context_overflow_keeps_its_numbers():
    body = told("too long", "exceed_context_size_error", n_prompt_tokens=9, n_ctx=8)
    error = openai_shape(read_engine_error(400, body))["error"]
    assert error == {
        "message": "too long",
        "type": "invalid_request_error",
        "param": None,
        "code": "context_length_exceeded",
        "n_prompt_tokens": 9,
        "n_ctx": 8,
    }


@pytest.mark.parametrize(
    ("status", "message"),
    [
        (400, "whatever"),
        (500, "image input is not supported - hint: provide the mmproj"),
        (500, "Failed to parse messages: Missing 'role' in message"),
        (500, "input is too large to process. increase the physical batch size"),
        (501, "This server does not support reranking: unsupported"),
    ],
)
def test_what_no_second_try_can_save_is_the_callers_mistake(status, message):
    assert read_engine_error(status, told(message)).http_status == 400


def test_a_refusal_keeps_the_field_and_the_reason_that_a_head_names():
    body = told("`n` must be 1 or more.", param="n", error_code="invalid_value")
    shape = openai_shape(read_engine_error(400, body))["error"]
    assert (shape["param"], shape["code"], shape["type"]) == ("n", "invalid_value", "invalid_request_error")


def test_a_refusal_of_an_external_server_keeps_its_own_code():
    body = b'{"error": {"message": "no", "type": "invalid_request_error", "param": "n", "code": "too_many"}}'
    shape = openai_shape(read_engine_error(400, body))["error"]
    assert (shape["param"], shape["code"]) == ("n", "too_many")


@pytest.mark.parametrize(
    ("given", "kept"),
    [({}, 2), ({"retry_after": 30}, 30), ({"retry_after": -1}, 2), ({"retry_after": True}, 2)],
)
def test_an_engine_that_is_not_ready_may_say_when_it_will_be(given, kept):
    error = read_engine_error(503, told("full", "unavailable_error", **given))
    assert isinstance(error, Unavailable) and error.retry_after_s == kept


def test_answers_that_outgrow_their_context_together_may_be_asked_for_again():
    body = b'{"error": {"code": 500, "message": "Context size has been exceeded.", "type": "server_error"}}'
    error = read_engine_error(500, body)
    assert error.http_status == 503 and isinstance(error, Unavailable) and error.retry_after_s == 2
    assert "max_tokens" in str(error)


def test_other_failures_of_the_engine_are_a_502_with_its_words():
    error = read_engine_error(500, told("Compute error."))
    assert error.http_status == 502
    assert "Compute error." in str(error)
    assert read_engine_error(503, told("Loading model")).http_status == 503


@pytest.mark.parametrize("status", [301, 307, 308])
def test_a_redirect_is_told_as_one_whatever_its_page_says(status):
    error = read_engine_error(status, b"<a href='elsewhere'>unknown</a>")
    assert error.http_status == 502
    assert f"HTTP {status}" in str(error) and "--endpoint" in str(error)


@given(st.integers(201, 599), st.binary())
def test_any_answer_of_an_engine_has_a_meaning(status, body):
    error = read_engine_error(status, body)
    assert 400 <= error.http_status < 600
    json.dumps(openai_shape(error))


def test_anthropic_clients_get_their_own_words():
    assert anthropic_shape(ModelNotFound("no"))["error"]["type"] == "not_found_error"
    assert anthropic_shape(Unavailable("no", retry_after_s=1))["error"]["type"] == "overloaded_error"
