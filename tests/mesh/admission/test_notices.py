from random import Random

import msgspec
import pytest

from mesh_llm.mesh.admission import notices as module
from mesh_llm.mesh.admission.notices import (
    BATCH_BYTES_MAX,
    DIGEST_BYTES,
    LONG_NOTICES_MAX,
    NOTICE_BYTES_MAX,
    SPARED_MAX,
    Expulsion,
    Forward,
    NoticeAccepted,
    NoticeReceived,
    Notices,
    Revocation,
    decode_batch,
    decode_notice,
    encode_batches,
    expulsion,
    revocation,
)
from mesh_llm.mesh.transport import FRAME_BYTES_MAX, PeerError
from tests.mesh.members import NOW, founder, key, line
from tests.mesh.mutations import survives

FOUNDER, GUEST, THIRD = line(1, 2, 3)
EXPULSION = expulsion(key(1), FOUNDER.certificate, key(2).node, [key(3).node], NOW)
REVOCATION = revocation(key(2), GUEST.certificate, b"i" * 16, NOW)


def received(notice: bytes) -> NoticeReceived:
    return NoticeReceived(notice, key(5).node)


def test_an_expulsion_says_who_by_whom_and_who_stays():
    notice = decode_notice(EXPULSION)
    assert isinstance(notice, Expulsion)
    assert (notice.by.node, notice.expelled, notice.spared) == (key(1).node, key(2).node, {key(3).node})
    assert notice.at == NOW
    assert not notice.own


def test_a_revocation_names_its_invite():
    notice = decode_notice(REVOCATION)
    assert isinstance(notice, Revocation)
    assert (notice.by.node, notice.invite) == (key(2).node, b"i" * 16)


def test_what_is_new_goes_on_to_all_but_its_sender_and_once_only():
    notices = Notices(FOUNDER.mesh)
    assert notices.handle(received(EXPULSION)) == [
        Forward(EXPULSION, besides=key(5).node),
        NoticeAccepted(decode_notice(EXPULSION)),
    ]
    assert notices.handle(received(EXPULSION)) == []


def test_who_passes_a_notice_on_cannot_make_two_of_one():
    notices = Notices(FOUNDER.mesh)
    notices.handle(received(EXPULSION))
    fields = msgspec.msgpack.decode(EXPULSION)
    longer = msgspec.msgpack.encode([*fields, "more"])
    assert notices.handle(received(longer)) == []
    assert notices.all() == (EXPULSION,)
    fresh = Notices(FOUNDER.mesh)
    fresh.handle(received(longer))
    assert fresh.all() == (EXPULSION,)


def test_the_same_notices_have_one_digest_in_any_order():
    one, other = Notices(FOUNDER.mesh), Notices(FOUNDER.mesh)
    one.handle(received(EXPULSION))
    assert one.digest() != other.digest()
    one.handle(received(REVOCATION))
    other.handle(received(REVOCATION))
    other.handle(received(EXPULSION))
    assert one.digest() == other.digest()
    assert len(one.digest()) == DIGEST_BYTES


def test_a_full_exchange_brings_what_the_other_side_lacks():
    notices = Notices(FOUNDER.mesh, [EXPULSION, REVOCATION])
    assert notices.besides([EXPULSION]) == (REVOCATION,)
    assert notices.besides([]) == (EXPULSION, REVOCATION)


def forged_by_another_signer() -> bytes:
    return expulsion(key(3), FOUNDER.certificate, key(2).node, [], NOW)


def altered(place: int, value: object) -> bytes:
    fields = msgspec.msgpack.decode(EXPULSION)
    fields[place] = value
    return msgspec.msgpack.encode(fields)


def body_altered(field: str, value: object) -> bytes:
    body = msgspec.msgpack.decode(msgspec.msgpack.decode(EXPULSION)[1])
    return altered(1, msgspec.msgpack.encode({**body, field: value}))


@pytest.mark.parametrize(
    "notice",
    [
        forged_by_another_signer(),
        body_altered("node", bytes.fromhex(key(3).node)),
        body_altered("spared", []),
        body_altered("certificate", GUEST.certificate),
        altered(2, bytes(64)),
        altered(2, b""),
        altered(0, 2),
    ],
)
def test_a_notice_that_its_issuer_did_not_sign_is_not_believed(notice: bytes):
    notices = Notices(FOUNDER.mesh)
    with pytest.raises(PeerError):
        notices.handle(received(notice))
    assert notices.all() == ()


def test_another_meshs_notice_is_not_taken():
    elsewhere = founder(8)
    notice = expulsion(key(8), elsewhere.certificate, key(2).node, [], NOW)
    with pytest.raises(PeerError, match="another mesh"):
        Notices(FOUNDER.mesh).handle(received(notice))


def test_a_notice_cannot_name_another_mesh_than_its_issuers():
    fields = {"mesh": bytes(16), "certificate": FOUNDER.certificate, "at": 1, "invite": bytes(16)}
    body = msgspec.msgpack.encode(fields)
    signature = key(1).sign(b"mesh-llm revocation 1\0", body)
    with pytest.raises(PeerError, match="member of another"):
        decode_notice(msgspec.msgpack.encode([2, body, signature]))


def test_a_kind_of_notice_that_only_newer_versions_know_is_passed_over():
    newer = altered(0, 77)
    assert decode_notice(newer) is None
    assert Notices(FOUNDER.mesh).handle(received(newer)) == []


def test_the_longest_expulsion_fits():
    spared = [Random(number).randbytes(32).hex() for number in range(SPARED_MAX + 5)]
    longest = expulsion(key(1), FOUNDER.certificate, key(2).node, spared, NOW)
    notice = decode_notice(longest)
    assert isinstance(notice, Expulsion)
    assert len(notice.spared) == SPARED_MAX
    assert len(longest) < NOTICE_BYTES_MAX


def test_beyond_the_limit_the_notices_of_the_most_senior_stay(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(module, "NOTICES_MAX", 3)
    junior = [revocation(key(3), THIRD.certificate, bytes([number] * 16), NOW) for number in range(5)]
    senior = revocation(key(1), FOUNDER.certificate, b"s" * 16, NOW)
    one = Notices(FOUNDER.mesh, [*junior, senior, EXPULSION])
    other = Notices(FOUNDER.mesh, [senior, EXPULSION, *reversed(junior)])
    assert len(one.all()) == 4  # of each kind
    assert one.revoked(b"s" * 16)
    assert one.digest() == other.digest()
    dropped = next(notice for notice in junior if notice not in one.all())
    assert one.handle(received(dropped)) == []


def test_long_expulsions_are_limited_more_tightly_than_short_ones():
    everybody = [Random(number).randbytes(32).hex() for number in range(SPARED_MAX)]
    long = [expulsion(key(3), THIRD.certificate, key(4).node, everybody, NOW + n) for n in range(70)]
    short = [expulsion(key(3), THIRD.certificate, key(4).node, [], NOW + n) for n in range(70)]
    one, other = (
        Notices(FOUNDER.mesh, [*long, *short]),
        Notices(FOUNDER.mesh, [*reversed(short), *long[::-1]]),
    )
    assert len(one.all()) == LONG_NOTICES_MAX + 70
    assert one.digest() == other.digest()


def test_batches_fit_into_frames_and_lose_nothing():
    many = [bytes([number % 256]) * 60_000 for number in range(40)]
    frames = encode_batches(many)
    assert [notice for frame in frames for notice in decode_batch(frame)] == many
    assert len(frames) > 1
    assert max(map(len, frames)) <= BATCH_BYTES_MAX + 1000 < FRAME_BYTES_MAX
    assert encode_batches([]) == []


def test_no_noise_is_a_notice():
    survives(decode_notice, [EXPULSION, REVOCATION], PeerError)


def test_no_noise_is_a_batch():
    survives(decode_batch, encode_batches([EXPULSION, REVOCATION]), PeerError)
