import pytest

from mesh_llm.runtime.web import is_loopback


@pytest.mark.parametrize(
    "host", ["localhost", "localhost:9337", "127.0.0.1:1", "[::1]:9337", "[::1]", "app.localhost:80"]
)
def test_this_machine_s_names_are_known(host):
    assert is_loopback(host)


@pytest.mark.parametrize(
    "host", [None, "", "evil.example", "localhost.evil.example", "127.0.0.1.evil.example:9337", "10.0.0.1"]
)
def test_all_others_are_foreign(host):
    assert not is_loopback(host)
