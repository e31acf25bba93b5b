from mesh_llm.mesh.admission.ledger import MEMBERS_MAX, KnownMember, Ledger, founded
from mesh_llm.mesh.transport import Addresses
from tests.mesh.members import NONCE, founder, invite, key, let_in, line


def known(number: int, last_seen: int) -> KnownMember:
    return KnownMember(key(number).node, b"", Addresses(), last_seen)


def test_a_ledger_knows_its_mesh_and_its_node():
    first, guest = line(1, 2)
    assert Ledger(guest.certificate).mesh == first.mesh
    assert Ledger(guest.certificate).node == guest.me


def test_a_founder_is_alone_until_somebody_comes():
    first = founder()
    token = invite(first, once=True)
    assert first.ledger.alone
    guest = let_in(first, 2, token)
    assert not first.ledger.alone  # a single-use invite was used
    assert not guest.ledger.alone
    assert not founded(key(1).node, NONCE).with_members((known(2, 5),)).alone


def test_of_too_many_members_those_seen_last_are_remembered():
    members = tuple(known(number, last_seen=number) for number in range(MEMBERS_MAX + 10))
    kept = founded(key(1).node, NONCE).with_members(members).members
    assert len(kept) == MEMBERS_MAX
    assert min(member.last_seen for member in kept) == 10
