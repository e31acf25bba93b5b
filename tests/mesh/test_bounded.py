from collections.abc import Callable
from contextlib import suppress

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesh_llm.mesh import bounded
from mesh_llm.mesh.admission import certificates, hello, joining, notices
from mesh_llm.mesh.transport import PeerError

DECODERS: list[Callable[[bytes], object]] = [
    certificates.verified,
    notices.decode_notice,
    notices.decode_batch,
    hello.decode_hello,
    joining.decode_request,
    joining.decode_answer,
]
FIELDS = [
    "certificate",
    "program_version",
    "fast_path",
    "advert",
    "addresses",
    "direct",
    "relay",
    "token",
    "notices",
    "adverts",
    "fault",
    "message",
]
LEAVES = st.none() | st.booleans() | st.integers(-(1 << 63), (1 << 64) - 1) | st.floats() | st.text()
VALUES = st.recursive(
    LEAVES
    | st.binary(max_size=70)
    | st.binary(min_size=16, max_size=16)
    | st.binary(min_size=32, max_size=32),
    lambda inner: st.lists(inner, max_size=6) | st.dictionaries(st.sampled_from(FIELDS), inner),
)


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


@given(VALUES, st.sampled_from(DECODERS))
def test_well_formed_nonsense_is_read_or_refused_and_nothing_else(
    value: object, decode: Callable[[bytes], object]
):
    with suppress(PeerError):
        decode(msgspec.msgpack.encode(value))
