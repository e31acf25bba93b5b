from random import Random

import pytest

from mesh_llm.core.errors import InviteFault, InviteRefused, RequestRefused
from mesh_llm.mesh.admission.admission import Admission
from mesh_llm.mesh.admission.certificates import LINKS_MAX, verified
from mesh_llm.mesh.admission.hello import Refusal
from mesh_llm.mesh.admission.invites import SKEW_SECONDS_MAX, TTL_SECONDS_DEFAULT, TTL_SECONDS_MAX, parse
from mesh_llm.mesh.admission.joining import Admitted, Declined, JoinRequest
from mesh_llm.mesh.admission.ledger import INVITES_MAX
from mesh_llm.mesh.admission.notices import Forward, NoticeAccepted
from tests.mesh.members import (
    LATER,
    NOW,
    certificates_of,
    door,
    founder,
    invite,
    is_in,
    key,
    let_in,
    line,
    tell,
)


def ask(at: Admission, token: str, number: int, now: float = NOW) -> Admitted | Declined:
    return at.answer(JoinRequest(token, "1"), key(number).node, now)


def fault(answer: Admitted | Declined) -> InviteFault | None:
    assert isinstance(answer, Declined)
    return answer.fault


def test_who_comes_with_an_invite_is_a_member_to_all():
    first, second, third = line(1, 2, 3)
    assert all(
        is_in(member, at=judge) for member in (first, second, third) for judge in (first, second, third)
    )


def test_an_invite_opens_every_members_door():
    first, second = line(1, 2)
    guest = let_in(second, 3, invite(first))
    assert verified(guest.certificate).chain == (first.me, second.me, guest.me)
    assert is_in(guest, at=first)


def test_an_invite_is_good_for_many_unless_it_is_for_one():
    first = founder()
    token = invite(first)
    assert is_in(let_in(first, 2, token), at=first)
    assert is_in(let_in(first, 3, token), at=first)
    once = invite(first, once=True)
    assert is_in(let_in(first, 4, once), at=first)
    assert fault(ask(first, once, 5)) is InviteFault.USED


def test_who_lost_the_answer_to_a_single_use_invite_gets_it_again_after_a_restart():
    first = founder()
    once = invite(first, once=True)
    answer = ask(first, once, 2)
    restarted = Admission(key(1), first.ledger)
    assert ask(restarted, once, 2, LATER) == answer
    assert fault(ask(restarted, once, 3)) is InviteFault.USED


def test_a_single_use_invite_opens_its_makers_door_only():
    first, second = line(1, 2)
    assert fault(ask(second, invite(first, once=True), 3)) is InviteFault.UNREACHABLE


@pytest.mark.parametrize(
    ("token", "expected"),
    [
        ("nonsense", InviteFault.MALFORMED),
        (invite(founder())[:-3], InviteFault.TRUNCATED),
        (invite(founder(8)), InviteFault.FOREIGN),
        (invite(founder(), ttl_s=1), InviteFault.EXPIRED),
    ],
)
def test_the_door_refuses_a_bad_token_by_its_fault(token: str, expected: InviteFault):
    assert fault(ask(founder(), token, 2, NOW + 2 + SKEW_SECONDS_MAX)) is expected


def test_a_revoked_invite_opens_no_door_that_has_heard_of_it():
    first, second = line(1, 2)
    token = invite(first)
    effects = second.revoke(token, NOW)
    assert [type(effect) for effect in effects] == [Forward, NoticeAccepted]
    assert fault(ask(second, token, 3)) is InviteFault.REVOKED
    assert isinstance(ask(first, token, 3), Admitted)
    tell(effects, [first])
    assert fault(ask(first, token, 4)) is InviteFault.REVOKED


def test_an_invite_is_revoked_by_its_id_as_well_and_once():
    first = founder()
    token = invite(first)
    identity = first.ledger.issued[0].id.hex()
    assert first.revoke(identity.upper(), NOW)
    assert fault(ask(first, token, 3)) is InviteFault.REVOKED
    assert first.revoke(token, NOW) == []


@pytest.mark.parametrize("text", ["nonsense", "abc123", invite(founder(8))])
def test_what_is_no_invite_of_this_mesh_cannot_be_revoked(text: str):
    with pytest.raises(InviteRefused):
        founder().revoke(text, NOW)


def test_a_kicked_node_is_out_wherever_the_notice_came_and_cannot_come_back():
    first, second, third = line(1, 2, 3)
    token = invite(first)
    effects = first.kick(second.me, certificates_of([second, third]), NOW)
    assert first.judge(second.certificate, second.me) is Refusal.EXPELLED
    assert is_in(second, at=third)
    tell(effects, [third])
    assert third.judge(second.certificate, second.me) is Refusal.EXPELLED
    assert is_in(third, at=first)
    assert is_in(third, at=third)
    assert fault(ask(third, token, 2)) is InviteFault.EXPELLED


def test_a_kick_spoils_the_invites_that_the_node_made_and_the_one_with_which_it_came():
    first = founder()
    token = invite(first)
    second = let_in(first, 2, token)
    made = invite(second, seed=8)
    first.kick(second.me, certificates_of([second]), NOW)
    assert fault(ask(first, token, 3)) is InviteFault.REVOKED
    assert fault(ask(first, made, 3)) is InviteFault.EXPELLED


def test_what_a_kicked_node_had_rightly_said_of_others_stands():
    first = founder()
    second, third = let_in(first, 2), let_in(first, 3)
    bad = let_in(second, 4)
    tell(second.kick(bad.me, certificates_of([bad]), NOW), [first, third])
    tell(first.kick(second.me, certificates_of([second, bad, third]), NOW), [third])
    assert not is_in(bad, at=third)
    assert not is_in(second, at=third)
    assert is_in(third, at=third)


def test_who_kicks_back_does_not_say_again_that_it_is_out_itself():
    """Said by itself it would never be void."""
    first = founder()
    second, third = let_in(first, 2), let_in(first, 3)
    tell(third.kick(second.me, certificates_of([second]), NOW), [first, second])
    tell(second.kick(third.me, certificates_of([third]), NOW), [first])
    tell(first.kick(third.me, certificates_of([third]), NOW), [second])
    assert not any(expulsion.own for expulsion in first.notices.expulsions())
    assert not is_in(third, at=first)


def test_a_kicked_node_kicks_nobody():
    first = founder()
    second, third = let_in(first, 2), let_in(first, 3)
    effects = second.kick(third.me, certificates_of([third]), NOW)
    first.kick(second.me, certificates_of([second]), NOW)
    tell(effects, [first])
    assert is_in(third, at=first)


def test_nobody_kicks_itself_or_what_is_no_node():
    first = founder()
    with pytest.raises(RequestRefused, match="rotate-key"):
        first.kick(first.me, [], NOW)
    with pytest.raises(RequestRefused, match="64 hexadecimal digits"):
        first.kick(key(2).node[:10], [], NOW)


def test_a_node_that_was_never_seen_can_be_kicked():
    first = founder()
    first.kick(key(2).node, [], NOW)
    assert fault(ask(first, invite(first), 2)) is InviteFault.EXPELLED


def test_a_guest_of_a_kicked_node_that_nobody_knew_may_come_again():
    first, second, third = line(1, 2, 3)
    first.kick(second.me, certificates_of([second]), NOW)
    assert not is_in(third, at=first)
    assert is_in(let_in(first, 3), at=first)


@pytest.mark.parametrize(
    ("certificate", "node", "expected"),
    [
        (b"", 2, Refusal.DAMAGED),
        (line(1, 2)[1].certificate, 3, Refusal.NOT_YOURS),
        (line(8, 2)[1].certificate, 2, Refusal.FOREIGN),
        (line(1, 2)[1].certificate, 2, None),
    ],
)
def test_a_certificate_is_judged(certificate: bytes, node: int, expected: Refusal | None):
    assert founder().judge(certificate, key(node).node) is expected


def test_a_newcomer_hears_who_is_out():
    first = founder()
    second = let_in(first, 2)
    first.kick(second.me, certificates_of([second]), NOW)
    assert not is_in(second, at=let_in(first, 3))


def test_a_founder_who_lost_its_record_gets_its_old_place_back():
    first, second = line(1, 2)
    answer = ask(second, invite(second), 1)
    assert isinstance(answer, Admitted)
    assert answer.certificate == first.certificate


def test_what_was_decided_survives_a_restart():
    first, second = line(1, 2)
    first.kick(second.me, certificates_of([second]), NOW)
    restarted = Admission(key(1), first.ledger)
    assert restarted.ledger == first.ledger
    assert restarted.notices.digest() == first.notices.digest()
    assert not is_in(second, at=restarted)


@pytest.mark.parametrize("ttl_s", [0, -1, TTL_SECONDS_MAX + 1])
def test_an_invite_lives_a_second_to_a_year(ttl_s: int):
    with pytest.raises(RequestRefused, match="--ttl"):
        invite(founder(), ttl_s=ttl_s)


def test_an_invite_is_good_for_a_week_if_nothing_is_said():
    first = founder()
    token = first.invite([door(first)], NOW, Random(1))
    assert parse(token, NOW).expires == NOW + TTL_SECONDS_DEFAULT == NOW + 7 * 24 * 3600


def test_expired_invites_are_forgotten():
    first = founder()
    invite(first, ttl_s=60)
    first.invite([door(first)], LATER, Random(2))
    assert len(first.ledger.issued) == 1


def test_a_node_makes_no_more_invites_than_it_can_remember():
    first = founder()
    for _ in range(INVITES_MAX):
        invite(first)
    with pytest.raises(RequestRefused, match="revoke some"):
        invite(first)


def test_at_the_end_of_the_longest_chain_nobody_can_be_let_in():
    members = line(*range(1, LINKS_MAX + 2))
    with pytest.raises(RequestRefused, match="another node"):
        invite(members[-1])
    assert fault(ask(members[-1], invite(members[0]), 99)) is InviteFault.UNREACHABLE
