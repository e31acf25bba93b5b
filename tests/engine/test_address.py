import pytest

from mesh_llm.core.errors import RequestRefused
from mesh_llm.core.serving import Endpoint
from mesh_llm.engine.address import parse_endpoint


@pytest.mark.parametrize(
    ("given", "base"),
    [
        ("http://localhost:8000", "http://localhost:8000"),
        ("http://localhost:8000/", "http://localhost:8000"),
        ("http://localhost:8000/v1", "http://localhost:8000"),
        ("http://localhost:8000/v1/", "http://localhost:8000"),
        ("http://localhost:8000/v1/models", "http://localhost:8000"),
        ("https://openrouter.ai/api/v1", "https://openrouter.ai/api"),
        ("https://host.example", "https://host.example"),
        ("http://[::1]:11434/v1", "http://[::1]:11434"),
    ],
)
def test_an_address_is_taken_with_and_without_v1(given: str, base: str):
    assert parse_endpoint(given, None) == Endpoint(base, "", "openai")


def test_a_key_before_the_host_wins_over_the_environment_s():
    assert parse_endpoint("https://k%2Fy@host/v1", "other") == Endpoint("https://host", "k/y", "openai")
    assert parse_endpoint("https://host/v1", "other").api_key == "other"


@pytest.mark.parametrize(
    ("given", "word"),
    [
        ("localhost:8000", "write for example"),
        ("", "write for example"),
        ("ftp://k3y@host", "write for example"),
        ("http://", "write for example"),
        ("http://k3y@host:port", "write for example"),
        ("http://[::1", "write for example"),
        ("http://k3y@ho st", "write for example"),
        ("http://k3y@host/v1?a=b", "from `?`"),
        ("http://k3y:k3y@host/v1", "https://KEY@host/v1"),
        ("http://k3y%20k3y@host/v1", "printable ASCII"),
    ],
)
def test_a_bad_address_is_refused_with_the_cure_and_without_the_key(given: str, word: str):
    with pytest.raises(RequestRefused) as refused:
        parse_endpoint(given, "k3y")
    assert word in str(refused.value) and "k3y" not in str(refused.value)


def test_a_key_of_the_environment_that_is_none_is_refused():
    with pytest.raises(RequestRefused, match="printable ASCII"):
        parse_endpoint("http://host", "k\ney")
