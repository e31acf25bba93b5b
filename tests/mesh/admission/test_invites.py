import base64

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesh_llm.core.errors import InviteFault, InviteRefused
from mesh_llm.core.ids import short
from mesh_llm.mesh.admission import invites
from mesh_llm.mesh.admission.invites import DOORS_MAX, SKEW_SECONDS_MAX, Door, make, parse, read
from mesh_llm.mesh.transport import Addresses
from tests.mesh.members import NOW, door, founder, invite, key, line
from tests.mesh.mutations import survives

FOUNDER = founder()
TOKEN = invite(FOUNDER)
LAST = NOW + 3600 + SKEW_SECONDS_MAX


def refusal(text: str, now: float = NOW, **rest) -> InviteRefused:
    with pytest.raises(InviteRefused) as caught:
        parse(text, now, **rest)
    return caught.value


def test_a_token_says_which_mesh_by_whom_where_and_until_when():
    said = parse(TOKEN, NOW)
    assert said.mesh == FOUNDER.mesh
    assert said.issuer == FOUNDER.me
    assert said.doors == (door(FOUNDER),)
    assert (said.issued, said.expires, said.once) == (NOW, NOW + 3600, False)
    assert said.token == TOKEN


def test_a_token_with_one_address_is_short_enough_for_a_chat():
    assert len(TOKEN) < 300


def test_a_token_survives_quotes_and_line_breaks():
    wrapped = "\n  ".join(TOKEN[place : place + 60] for place in range(0, len(TOKEN), 60))
    assert parse(f' "{wrapped}"\n', NOW).token == TOKEN


def test_a_guests_token_carries_the_whole_chain():
    guest = line(1, 2, 3)[-1]
    assert parse(invite(guest), NOW).issuer == guest.me


def test_a_token_that_is_cut_off_anywhere_names_how_much_is_missing():
    for missing in range(1, len(TOKEN) - 8):
        refused = refusal(TOKEN[:-missing])
        assert refused.fault is InviteFault.TRUNCATED
        assert f" {missing} of its characters are missing" in str(refused)


@pytest.mark.parametrize("kept", [5, 6, 7])
def test_a_token_of_which_only_the_beginning_is_there_is_cut_off(kept: int):
    assert refusal(TOKEN[:kept]).fault is InviteFault.TRUNCATED


@pytest.mark.parametrize("place", range(8, len(TOKEN), 5))
def test_a_token_with_one_changed_character_is_damaged(place: int):
    other = "A" if TOKEN[place] != "A" else "B"
    if place == len(TOKEN) - 1:
        other = "x"  # the last character holds bits that nobody reads
    refused = refusal(TOKEN[:place] + other + TOKEN[place + 1 :])
    assert refused.fault is InviteFault.MALFORMED
    assert "damaged" in str(refused)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "must begin with mesh1"),
        ("hello", "must begin with mesh1"),
        ("mesh2" + TOKEN[5:], "another version"),
        (TOKEN + "AAAA", "4 characters too many"),
        (TOKEN[:40] + "ä" + TOKEN[41:], "characters that no token has"),
        (TOKEN + TOKEN, "too many"),
        ("mesh1" + "_" * 400, "damaged"),
        ("mesh1" + "A" * 500, "too many"),
        ("mesh1" + "A" * 200_000, "too many"),
    ],
)
def test_what_is_no_token_says_so(text: str, words: str):
    refused = refusal(text)
    assert refused.fault is InviteFault.MALFORMED
    assert words in str(refused)


def test_an_expired_token_says_when_that_was():
    parse(TOKEN, LAST)
    refused = refusal(TOKEN, LAST + 1)
    assert refused.fault is InviteFault.EXPIRED
    assert "2027-01-15 09:00 UTC" in str(refused)


def test_a_clock_that_is_behind_does_not_matter():
    assert parse(TOKEN, NOW - 86_400 * 365)


def test_another_meshs_token_says_how_to_get_in_all_the_same():
    elsewhere = founder(8)
    refused = refusal(TOKEN, mesh=elsewhere.mesh)
    assert refused.fault is InviteFault.FOREIGN
    assert short(FOUNDER.mesh) in str(refused)
    assert short(elsewhere.mesh) in str(refused)
    assert "--home" in str(refused)


def test_an_expired_token_can_still_be_read():
    assert read(TOKEN).expires < LAST


def sealed(body: bytes) -> str:
    """A token with any body, signed as the founder does."""
    data = len(body).to_bytes(2, "big") + body + key(1).sign(b"mesh-llm invite 1\0", body)
    return "mesh1" + base64.urlsafe_b64encode(data).rstrip(b"=").decode("ascii")


def remade(**changes) -> str:
    parts = {
        "key": key(1),
        "certificate": FOUNDER.certificate,
        "doors": [door(FOUNDER)],
        "identity": bytes(16),
        "issued": NOW,
        "expires": NOW + 60,
        "once": False,
    }
    return make(**{**parts, **changes})


def test_a_token_signed_by_somebody_else_than_its_issuer_is_damaged():
    stranger = key(2)
    token = remade(key=stranger, doors=[Door(stranger.node, Addresses())])
    assert refusal(token).fault is InviteFault.MALFORMED


def test_a_token_whose_first_door_is_not_its_makers_is_damaged():
    elsewhere = [bytes.fromhex(key(2).node), [], None]
    fields = [bytes(16), FOUNDER.certificate, [elsewhere], int(NOW), int(NOW) + 60, False]
    body = msgspec.msgpack.encode(fields)
    assert refusal(sealed(body)).fault is InviteFault.MALFORMED


def test_a_token_names_few_doors_and_a_single_use_one_only_its_issuers():
    doors = [door(FOUNDER), *(Door(key(number).node, Addresses()) for number in range(2, 9))]
    assert parse(remade(doors=doors), NOW).doors == tuple(doors[:DOORS_MAX])
    assert parse(remade(doors=doors, once=True), NOW).doors == (doors[0],)


def test_addresses_that_are_too_long_or_too_many_are_left_out():
    addresses = Addresses(("x" * 65, *(f"10.0.0.{n}:1" for n in range(20))), "http://" + "r" * 300)
    said = parse(remade(doors=[Door(key(1).node, addresses)]), NOW).doors[0].addresses
    assert said == Addresses(tuple(f"10.0.0.{n}:1" for n in range(invites.DOOR_ADDRESSES_MAX)), None)


def test_a_token_with_an_address_that_is_none_is_damaged():
    doors = [[bytes.fromhex(key(1).node), ["\x1b[2J"], None]]
    fields = [bytes(16), FOUNDER.certificate, doors, int(NOW), int(NOW) + 60, False]
    assert refusal(sealed(msgspec.msgpack.encode(fields))).fault is InviteFault.MALFORMED


def test_each_fault_has_an_exit_code_of_its_own():
    codes = [InviteRefused(fault, "").exit_code for fault in InviteFault]
    assert codes == list(range(10, 18))


@given(st.text(max_size=200))
def test_no_text_is_a_token(text: str):
    assert refusal(text).fault in (InviteFault.MALFORMED, InviteFault.TRUNCATED)
    assert refusal("mesh1" + text).fault in (InviteFault.MALFORMED, InviteFault.TRUNCATED)


def test_no_noise_is_a_token():
    corpus = [token.encode() for token in (TOKEN, remade(once=True), invite(line(1, 2, 3)[-1]))]
    refused = survives(lambda data: parse(data.decode("latin-1"), NOW), corpus, InviteRefused)
    assert refused > 9000


def test_no_noise_under_a_good_signature_is_an_invite():
    """Who holds a key can sign anything."""

    body = base64.urlsafe_b64decode(TOKEN[5:] + "=" * (-len(TOKEN[5:]) % 4))[2:-64]

    assert sealed(body) == TOKEN
    assert survives(lambda data: parse(sealed(data[:60_000]), NOW), [body], InviteRefused) > 3000
