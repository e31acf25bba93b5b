import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesh_llm.core.loopback import host_name, is_loopback, is_loopback_origin


@pytest.mark.parametrize(
    "host",
    ["localhost", "localhost:9337", "127.0.0.1:1", "127.8.8.8", "[::1]:9337", "[::1]", "app.localhost:80"],
)
def test_this_machine_s_names_are_known(host: str):
    assert is_loopback(host_name(host))
    assert is_loopback_origin(f"http://{host}")


@pytest.mark.parametrize(
    "host",
    [
        "",
        "evil.example",
        "localhost.evil.example",
        "127.0.0.1.evil.example:9337",
        "10.0.0.1",
        "[::1",
        "@",
        ":1",
    ],
)
def test_all_others_are_foreign(host: str):
    assert not is_loopback(host_name(host))


@given(st.text())
def test_no_header_breaks_it(text: str):
    assert is_loopback(host_name(text)) in (True, False)
    assert is_loopback_origin(text) in (True, False)
