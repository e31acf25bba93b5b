import contextlib
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesh_llm.core.errors import RequestRefused
from mesh_llm.gateway.json_values import dump, flag, object_at, objects_at, parse_object, text, whole_number


@given(st.binary())
def test_any_bytes_are_an_object_or_refused(body):
    with contextlib.suppress(RequestRefused):
        assert isinstance(parse_object(body), dict)


def test_lone_surrogates_stay_json():
    body = parse_object(rb'{"a":"\ud800"}')
    assert json.loads(dump(body)) == body


def test_text_is_written_as_it_is():
    assert dump({"a": "Grüße 🌟\u2028"}) == '{"a":"Grüße 🌟\u2028"}'.encode()


@pytest.mark.parametrize(
    ("read", "body", "says"),
    [
        (lambda body: flag(body, "a"), {"a": 1}, "`a` must be true or false"),
        (lambda body: text(body, "a"), {"a": 1}, "`a` must be a string"),
        (lambda body: whole_number(body, "a", least=1), {"a": 0}, "1 or more"),
        (lambda body: whole_number(body, "a", least=1), {"a": True}, "whole number"),
        (lambda body: object_at(body, "a"), {"a": []}, "an object"),
        (lambda body: objects_at(body, "a"), {"a": {}}, "a list"),
        (lambda body: objects_at(body, "a"), {"a": [{}, 1]}, r"`a\[1\]` must be an object"),
    ],
)
def test_a_wrong_type_is_refused_by_name(read, body, says):
    with pytest.raises(RequestRefused, match=says) as refused:
        read(body)
    assert refused.value.parameter and refused.value.parameter.startswith("a")
    assert not read({})


@pytest.mark.parametrize("body", [b'{"a": 1e999}', b'{"a": [-1e999]}', b'{"a": NaN}', b'{"a": Infinity}'])
def test_a_number_beyond_all_numbers_is_no_json(body):
    with pytest.raises(RequestRefused) as refused:
        parse_object(body)
    assert refused.value.code == "invalid_json"
