from dataclasses import replace

import msgspec
import pytest

from mesh_llm.core.errors import InviteFault, InviteRefused
from mesh_llm.mesh.admission import notices
from mesh_llm.mesh.admission.invites import parse
from mesh_llm.mesh.admission.joining import (
    Admitted,
    Declined,
    Found,
    Join,
    JoinRequest,
    Rejoin,
    declined,
    decode_answer,
    decode_request,
    encode_answer,
    encode_request,
    plan_start,
    refused,
    welcomed,
)
from mesh_llm.mesh.admission.ledger import KnownMember, Ledger
from mesh_llm.mesh.transport import FRAME_BYTES_MAX, Addresses, PeerError
from tests.mesh.members import LATER, NONCE, NOW, founder, invite, key, let_in, line
from tests.mesh.mutations import survives

FOUNDER, GUEST = line(1, 2)
TOKEN = invite(FOUNDER)
INVITE = parse(TOKEN, NOW)
ADMITTED = Admitted(
    GUEST.certificate, (notices.revocation(key(1), FOUNDER.certificate, NONCE, NOW),), (b"a",)
)
MUCH_LATER = NOW + 86_400 * 400


def test_a_request_arrives_as_it_was_said():
    request = JoinRequest(TOKEN, "0.3.0")
    assert decode_request(encode_request(request)) == request


@pytest.mark.parametrize("answer", [ADMITTED, Declined(InviteFault.USED, "used up")])
def test_an_answer_arrives_as_it_was_said(answer: Admitted | Declined):
    assert decode_answer(encode_answer(answer)) == answer


def test_newer_peers_may_say_more():
    fields = msgspec.msgpack.decode(encode_answer(ADMITTED))
    assert decode_answer(msgspec.msgpack.encode({**fields, "song": 1})) == ADMITTED


def test_a_fault_that_only_newer_versions_know_keeps_its_words_but_no_escapes():
    frame = msgspec.msgpack.encode({"fault": "too_tuesday", "message": "come\x1b[2J tomorrow"})
    answer = decode_answer(frame)
    assert answer == Declined(None, "come [2J tomorrow")
    assert "come [2J tomorrow" in str(declined(answer, INVITE))


def test_an_answer_leaves_out_what_has_no_room_in_a_frame():
    answer = Admitted(GUEST.certificate, (bytes(60_000),) * 50, (bytes(9_000),) * 900)
    frame = encode_answer(answer)
    assert len(frame) < FRAME_BYTES_MAX
    received = decode_answer(frame)
    assert isinstance(received, Admitted)
    assert 0 < len(received.notices) < 50
    assert 0 < len(received.adverts) < 900


def test_a_welcome_is_checked_before_it_is_believed():
    assert welcomed(ADMITTED, INVITE, GUEST.me).chain == (FOUNDER.me, GUEST.me)


@pytest.mark.parametrize(
    "answer",
    [
        Admitted(b"nothing"),
        Admitted(FOUNDER.certificate),
        Admitted(let_in(FOUNDER, 3).certificate),
        Admitted(let_in(founder(8), 2).certificate),
        replace(ADMITTED, notices=(b"nothing",)),
    ],
)
def test_a_door_that_gives_something_else_than_the_invite_promised_is_not_believed(answer: Admitted):
    with pytest.raises(PeerError):
        welcomed(answer, INVITE, GUEST.me)


@pytest.mark.parametrize("fault", list(InviteFault))
def test_each_refusal_has_its_own_words_with_a_cure(fault: InviteFault):
    told = declined(Declined(fault, "the door's own words"), INVITE)
    assert told.fault is fault
    assert "door's own words" not in str(told)
    assert any(word in str(told) for word in ("mesh-llm invite", "Copy it again", "Ask another member"))


def test_the_words_of_refusals_differ():
    assert len({str(refused(fault)) for fault in InviteFault}) == len(InviteFault)


def test_a_new_home_without_a_token_founds_a_mesh():
    assert plan_start(None, [], NOW) == Found()


def test_a_new_home_with_tokens_asks_with_each_good_one():
    other = invite(founder(8))
    start = plan_start(None, ["nonsense", TOKEN, other], NOW)
    assert start == Join((parse(TOKEN, NOW), parse(other, NOW)))


def test_where_no_token_is_good_the_first_ones_reason_is_told():
    with pytest.raises(InviteRefused) as caught:
        plan_start(None, ["nonsense", TOKEN[:-5]], NOW)
    assert caught.value.fault is InviteFault.MALFORMED
    with pytest.raises(InviteRefused) as caught:
        plan_start(None, [TOKEN], MUCH_LATER)
    assert caught.value.fault is InviteFault.EXPIRED


def test_a_member_needs_no_token():
    assert plan_start(Ledger(GUEST.certificate), [], LATER) == Rejoin()


def test_a_member_that_gives_its_old_token_again_needs_it_no_more():
    ledger = Ledger(GUEST.certificate)
    assert plan_start(ledger, [TOKEN], MUCH_LATER) == Rejoin()
    assert plan_start(ledger, ["nonsense", TOKEN], NOW) == Rejoin()


def test_a_member_cannot_join_another_mesh_with_the_same_home():
    with pytest.raises(InviteRefused) as caught:
        plan_start(Ledger(GUEST.certificate), [invite(founder(8))], NOW)
    assert caught.value.fault is InviteFault.FOREIGN
    assert "--home" in str(caught.value)


def test_who_started_alone_first_may_join_others():
    assert plan_start(founder(8).ledger, [TOKEN], NOW) == Join((INVITE,))


def test_a_founder_whom_somebody_joined_stays():
    elsewhere = founder(8)
    guest = let_in(elsewhere, 9)
    known = KnownMember(guest.me, guest.certificate, Addresses(), int(NOW))
    with pytest.raises(InviteRefused):
        plan_start(elsewhere.ledger.with_members((known,)), [TOKEN], NOW)


def test_no_noise_is_a_request():
    survives(decode_request, [encode_request(JoinRequest(TOKEN, "0.3.0"))], PeerError)


def test_no_noise_is_an_answer():
    corpus = [encode_answer(ADMITTED), encode_answer(Declined(InviteFault.USED, "used up"))]
    survives(decode_answer, corpus, PeerError)
