from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesh_llm.core.ids import NodeId
from mesh_llm.mesh.admission.signatures import NodeKey, node_bytes, node_id, verify
from mesh_llm.mesh.transport import PeerError

A, B = b"mesh-llm apples 1\0", b"mesh-llm pears 1\0"
KEY = NodeKey(bytes(32))


def test_a_signature_holds_for_its_signer_domain_and_body_only():
    signature = KEY.sign(A, b"body")
    assert verify(KEY.node, A, b"body", signature)
    assert not verify(KEY.node, B, b"body", signature)
    assert not verify(KEY.node, A, b"another", signature)
    assert not verify(NodeKey(b"x" * 32).node, A, b"body", signature)


def test_the_known_key_of_the_standard_has_its_known_id():
    """RFC 8032, 7.1, test 1."""
    seed = bytes.fromhex("9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60")
    assert NodeKey(seed).node == "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a"


@given(st.binary(max_size=100))
def test_no_bytes_make_a_signature_by_chance(signature: bytes):
    assert not verify(KEY.node, A, b"body", signature)


@pytest.mark.parametrize("node", ["", "zz", "ab" * 31, "ab" * 33, "ff" * 32, "00" * 32])
def test_what_is_no_key_has_signed_nothing(node: str):
    assert not verify(NodeId(node), A, b"body", KEY.sign(A, b"body"))


@pytest.mark.parametrize("domain", [b"invite 1\0", b"mesh-llm invite 1", b"mesh-llm \0invite\0"])
def test_a_domain_that_could_begin_another_is_a_bug(domain: bytes):
    with pytest.raises((AssertionError, ValueError)):
        KEY.sign(domain, b"")


def test_the_seed_is_not_shown():
    key = NodeKey.draw(Random(1))
    assert key.seed.hex() not in repr(key)
    assert key.node in repr(key)


def test_an_id_goes_into_32_bytes_and_back():
    assert node_id(node_bytes(KEY.node)) == KEY.node
    with pytest.raises(PeerError, match="32 bytes"):
        node_id(b"short")
