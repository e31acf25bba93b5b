from dataclasses import replace

import msgspec
import pytest

from mesh_llm.mesh import bounded
from mesh_llm.mesh.admission.hello import (
    FAST_PATH_CERTIFICATE_BYTES_MAX,
    HELLO_BYTES_MAX,
    Hello,
    Refusal,
    decode_hello,
    encode_hello,
)
from mesh_llm.mesh.transport import Addresses, FastPath, PeerError
from tests.mesh.members import founder
from tests.mesh.mutations import survives

SHORT = Hello(founder().certificate, "0.3.0")
FULL = Hello(
    founder().certificate,
    "0.3.0",
    FastPath(("192.168.1.5:40123",), b"der"),
    Addresses(("192.168.1.5:51234", "[fe80::1%eth0]:5"), "https://relay.example"),
)


@pytest.mark.parametrize("hello", [SHORT, FULL])
def test_a_hello_arrives_as_it_was_said(hello: Hello):
    assert decode_hello(encode_hello(hello)) == hello


def test_a_newer_hello_is_understood():
    fields = msgspec.msgpack.decode(encode_hello(SHORT))
    assert decode_hello(msgspec.msgpack.encode({**fields, "mood": ["good"]})) == SHORT


def test_a_newer_hello_may_not_say_without_end():
    fields = msgspec.msgpack.decode(encode_hello(SHORT))
    with pytest.raises(PeerError, match="65536 are allowed"):
        decode_hello(msgspec.msgpack.encode({**fields, "mood": bytes(HELLO_BYTES_MAX)}))


def test_an_older_hello_may_say_less():
    fields = {"certificate": b"c", "program_version": "0.1"}
    assert decode_hello(msgspec.msgpack.encode(fields)) == Hello(b"c", "0.1")


@pytest.mark.parametrize(
    "hello",
    [
        Hello(bytes(17_000), "1"),
        Hello(b"", "1" * 65),
        Hello(b"", "1", addresses=Addresses(("\x1b[2J",))),
        Hello(b"", "1", FastPath(("ä:1",), b"")),
        Hello(b"", "1", FastPath((), bytes(FAST_PATH_CERTIFICATE_BYTES_MAX + 1))),
    ],
)
def test_a_hello_outside_the_limits_is_refused(hello: Hello):
    with pytest.raises(PeerError):
        decode_hello(bounded.encode(hello))


def test_an_address_that_others_would_refuse_is_left_out():
    hello = replace(SHORT, addresses=Addresses(("1.2.3.4:5", "x" * 65), "r" * 257))
    assert decode_hello(encode_hello(hello)).addresses == Addresses(("1.2.3.4:5",))


@pytest.mark.parametrize("refusal", list(Refusal))
def test_a_refusal_is_recognised_by_its_word(refusal: Refusal):
    assert Refusal.of(refusal.message) is refusal
    assert Refusal.of(refusal.value) is refusal


def test_other_words_are_no_refusal_of_a_certificate():
    assert Refusal.of("Show a certificate first") is None


def test_no_noise_is_a_hello():
    survives(decode_hello, [encode_hello(SHORT), encode_hello(FULL)], PeerError)
