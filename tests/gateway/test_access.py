import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesh_llm.core.errors import RequestRefused
from mesh_llm.core.loopback import is_loopback_origin
from mesh_llm.gateway.access import check


def asked(headers, api_key=None, needs_key=True, local_address="127.0.0.1"):
    try:
        check(headers, api_key=api_key, needs_key=needs_key, local_address=local_address)
    except RequestRefused as refused:
        return refused.http_status
    return 200


@pytest.mark.parametrize(
    "headers", [{"Authorization": "Bearer s3"}, {"authorization": "bearer s3"}, {"x-api-key": "s3"}]
)
def test_the_key_is_taken_from_either_header(headers):
    given_headers = {
        "Authorization" if name == "authorization" else name: value for name, value in headers.items()
    }
    assert asked(given_headers, api_key="s3") == 200


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Authorization": "Bearer s4"},
        {"Authorization": "s3"},
        {"Authorization": "Basic s3"},
        {"x-api-key": ""},
    ],
)
def test_a_wrong_or_missing_key_is_a_401(headers):
    assert asked(headers, api_key="s3") == 401


def test_health_needs_no_key():
    assert asked({}, api_key="s3", needs_key=False) == 200


def test_keys_may_be_any_text():
    assert asked({"x-api-key": "schlüssel"}, api_key="schlüssel") == 200


@pytest.mark.parametrize(
    "origin", ["http://evil.example", "https://localhost.evil.example", "null", "", "http://[::1"]
)
@pytest.mark.parametrize("api_key", [None, "s3"])
def test_pages_from_elsewhere_are_refused(origin, api_key):
    headers = {"Origin": origin, "Host": "localhost", "x-api-key": "s3"}
    assert asked(headers, api_key=api_key) == 403


@pytest.mark.parametrize(
    "origin", ["http://localhost:3000", "http://127.0.0.1", "http://[::1]:5173", "http://a.localhost"]
)
def test_pages_on_this_machine_are_let_in(origin):
    assert is_loopback_origin(origin)
    assert asked({"Origin": origin, "Host": "localhost:9337"}) == 200


@pytest.mark.parametrize("host", ["evil.example", "evil.example:9337", "10.0.0.9", "[::1", ""])
def test_other_host_names_are_refused_where_no_key_protects(host):
    assert asked({"Host": host}) == 403
    assert asked({"Host": host, "x-api-key": "s3"}, api_key="s3") == 200


@pytest.mark.parametrize("host", ["localhost", "localhost:9337", "127.0.0.1:9337", "[::1]:9337"])
def test_own_host_names_are_let_in(host):
    assert asked({"Host": host}) == 200


def test_the_address_that_was_dialled_is_an_own_name():
    assert asked({"Host": "10.0.0.9:9337"}, local_address="10.0.0.9") == 200


@given(st.text(), st.text(), st.text())
def test_no_header_crashes_the_check(host, origin, key):
    assert asked({"Host": host, "Origin": origin, "x-api-key": key}, api_key="s3") in (200, 401, 403)
    assert asked({"Host": host, "Origin": origin}) in (200, 403)
