import pytest

from mesh_llm.mesh import bounded
from mesh_llm.mesh.transport import PeerError


def test_too_many_bytes_are_not_read_at_all():
    with pytest.raises(PeerError, match="A note of 11 bytes: 10 are allowed"):
        bounded.decode(bytes(11), bytes, bytes_max=10, what="A note")


@pytest.mark.parametrize(
    "data",
    [b"", b"\xc1", b"\x91" * 5000, b"\xdd\xff\xff\xff\xff", b"\xa2\xff\xff", b"\x01", b"\x93\x01\x02\x03"],
)
def test_what_is_not_a_list_of_words_is_the_peers_fault(data: bytes):
    with pytest.raises(PeerError, match="A list that cannot be read"):
        bounded.decode(data, tuple[str, ...], bytes_max=10_000, what="A list")


def test_what_went_in_comes_out():
    assert bounded.decode(bounded.encode(("a", "b")), tuple[str, ...], bytes_max=10, what="A list") == (
        "a",
        "b",
    )
