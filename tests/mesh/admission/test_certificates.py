from dataclasses import replace
from itertools import pairwise

import msgspec
import pytest

from mesh_llm.core.ids import MeshId
from mesh_llm.mesh.admission.certificates import (
    CERTIFICATE_BYTES_MAX,
    LINKS_MAX,
    Certificate,
    can_extend,
    decode,
    encode,
    extend,
    mesh_id,
    part_of,
    verified,
)
from mesh_llm.mesh.transport import PeerError
from tests.mesh.members import NONCE, NOW, key
from tests.mesh.mutations import survives

INVITE = b"i" * 16


def chained(*numbers: int) -> Certificate:
    certificate = Certificate(key(numbers[0]).node, NONCE)
    for issuer, node in pairwise(numbers):
        certificate = extend(certificate, key(issuer), key(node).node, NOW, INVITE)
    return certificate


def test_the_founder_stands_first_without_a_signature():
    standing = verified(encode(chained(1)))
    assert standing.chain == (key(1).node,)
    assert standing.depth == 0
    assert standing.invite is None


def test_a_chain_proves_who_let_in_whom():
    standing = verified(encode(chained(1, 2, 3)))
    assert standing.chain == (key(1).node, key(2).node, key(3).node)
    assert standing.node == key(3).node
    assert standing.depth == 2
    assert standing.invite == INVITE
    assert standing.mesh == chained(1).mesh


def test_another_founder_or_nonce_is_another_mesh():
    ids = {mesh_id(key(1).node, NONCE), mesh_id(key(2).node, NONCE), mesh_id(key(1).node, bytes(16))}
    assert len(ids) == 3
    assert all(len(each) == 32 for each in ids)


def test_the_name_of_a_mesh_does_not_change_between_versions():
    assert mesh_id(key(1).node, NONCE) == MeshId("65957caeab334eb18eea4c993740a90c")


@pytest.mark.parametrize(
    "change",
    [
        lambda c: replace(c, founder=key(9).node),
        lambda c: replace(c, nonce=bytes(16)),
        lambda c: replace(c, links=c.links[1:]),
        lambda c: replace(c, links=c.links[::-1]),
        lambda c: replace(c, links=(c.links[0], replace(c.links[1], node=key(9).node))),
        lambda c: replace(c, links=(c.links[0], replace(c.links[1], issued=5))),
        lambda c: replace(c, links=(c.links[0], replace(c.links[1], invite=b"j" * 16))),
        lambda c: replace(c, links=(replace(c.links[0], issued=5), c.links[1])),
    ],
)
def test_a_certificate_with_a_changed_part_is_forged(change):
    with pytest.raises(PeerError, match="does not hold"):
        verified(encode(change(chained(1, 2, 3))))


def test_a_link_cannot_be_moved_to_another_chain_of_its_issuer():
    """Else whoever was let in by a node could make itself more senior."""
    deep, short = chained(1, 2, 3, 4), chained(1, 3)
    with pytest.raises(PeerError, match="does not hold"):
        verified(encode(replace(short, links=(*short.links, deep.links[-1]))))


def test_nobody_is_in_a_chain_twice():
    assert not can_extend(chained(1, 2, 3), key(2).node)
    looped = chained(1, 2)
    link = chained(1, 2, 3).links[-1]
    with pytest.raises(PeerError, match="twice"):
        verified(encode(replace(looped, links=(*looped.links, replace(link, node=key(1).node)))))


def test_a_chain_ends_after_32_links():
    longest = chained(*range(1, LINKS_MAX + 2))
    assert verified(encode(longest)).depth == LINKS_MAX
    assert len(encode(longest)) < CERTIFICATE_BYTES_MAX / 2
    assert not can_extend(longest, key(99).node)
    with pytest.raises(PeerError, match="cannot be read"):
        verified(encode(replace(longest, links=(*longest.links, longest.links[0]))))


def test_an_ancestors_certificate_is_part_of_its_descendants():
    certificate = chained(1, 2, 3)
    assert part_of(certificate, key(2).node) == chained(1, 2)
    assert part_of(certificate, key(1).node) == chained(1)
    assert part_of(certificate, key(9).node) is None


def test_fields_of_newer_versions_are_passed_over():
    fields = msgspec.msgpack.decode(encode(chained(1, 2)))
    assert decode(msgspec.msgpack.encode([*fields, {"new": [1, 2]}])) == chained(1, 2)


def test_too_many_bytes_are_refused_before_they_are_read():
    with pytest.raises(PeerError, match="bytes"):
        decode(encode(chained(1, 2)) + bytes(CERTIFICATE_BYTES_MAX))


def test_no_noise_is_a_certificate():
    corpus = [encode(chained(1)), encode(chained(1, 2, 3)), encode(chained(1, 2, 3, 4, 5))]
    assert survives(verified, corpus, PeerError) > 9000
