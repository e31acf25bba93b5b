"""Adverts: signed by their node, within limits, readable by older and newer peers."""

from dataclasses import replace
from random import Random

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesh_llm.core.offers import ModelOffer, ServedOffer
from mesh_llm.core.stages import LayerRange, SplitClaim, StageHolding
from mesh_llm.mesh.admission.signatures import NodeKey
from mesh_llm.mesh.gossip.advert import (
    ADVERT_BYTES_MAX,
    DOMAIN,
    MODELS_MAX,
    NAME_CHARACTERS_MAX,
    ON_DISK_MAX,
    Advert,
    SignedAdvert,
    read,
    sign_advert,
)
from mesh_llm.mesh.transport import Addresses, PeerError
from tests.mesh.mutations import survives

KEY = NodeKey.draw(Random(1))
OTHER = NodeKey.draw(Random(2))
STAGE = StageHolding(OTHER.node, "cellar", LayerRange(0, 20), is_head=False)
FAR_STAGE = replace(STAGE, layers=LayerRange(0, 9999))
CLAIM = SplitClaim("Qwen3-8B 5e2f", "wanting", 8_000_000_000)
OFFER = ModelOffer("Qwen3-8B", ("qwen",), 5_000_000_000, 8192, stages=(STAGE,))
SERVED = ServedOffer(OFFER, True, 42.5)
ADVERT = Advert(
    KEY.node,
    7,
    "attic",
    "0.1.0",
    addresses=Addresses(("192.168.1.5:51234",), "https://relay.example.org/"),
    certificate=b"c" * 100,
    models=(SERVED,),
    on_disk=("Qwen3-8B",),
    claims=(CLAIM,),
)


def sign(body: bytes) -> bytes:
    return KEY.sign(DOMAIN, body)


def signed_as_it_is(advert: object) -> SignedAdvert:
    body = msgspec.msgpack.encode(advert)
    return SignedAdvert(body, sign(body))


def test_what_a_node_says_is_read_as_it_was_said():
    assert read(sign_advert(ADVERT, sign)) == ADVERT


def test_what_another_node_has_signed_is_refused():
    body = sign_advert(ADVERT, sign).body
    with pytest.raises(PeerError, match="signed"):
        read(SignedAdvert(body, OTHER.sign(DOMAIN, body)))


def test_a_signature_for_another_purpose_is_refused():
    body = sign_advert(ADVERT, sign).body
    with pytest.raises(PeerError, match="signed"):
        read(SignedAdvert(body, KEY.sign(b"mesh-llm leave 1\0", body)))


def test_a_changed_body_is_refused():
    whole = sign_advert(ADVERT, sign)
    with pytest.raises(PeerError, match="signed"):
        read(replace(whole, body=whole.body.replace(b"attic", b"arctc")))


def test_fields_of_a_newer_version_are_passed_over():
    newer = msgspec.to_builtins(ADVERT, builtin_types=(bytes,)) | {
        "mood": "fine",
        "plans": [{"deep": [1, 2]}],
    }
    assert read(signed_as_it_is(newer)) == ADVERT


def test_fields_that_an_older_version_lacks_have_defaults():
    assert read(signed_as_it_is({"node": KEY.node, "version": 1})) == Advert(KEY.node, 1)


@pytest.mark.parametrize(
    "advert",
    [
        replace(ADVERT, version=0),
        replace(ADVERT, version=2**63),
        replace(ADVERT, name="a" * (NAME_CHARACTERS_MAX + 1)),
        replace(ADVERT, name="\x1b[2Jattic"),
        replace(ADVERT, role="server\n"),
        replace(ADVERT, memory_bytes=-1),
        replace(ADVERT, addresses=Addresses(("1.2.3.4:5",) * 33)),
        replace(ADVERT, addresses=Addresses((), "https://\x00")),
        replace(ADVERT, certificate=b"c" * 17_000),
        replace(ADVERT, models=(SERVED,) * (MODELS_MAX + 1)),
        replace(ADVERT, models=(replace(SERVED, offer=replace(OFFER, stages=(STAGE,) * 65)),)),
        replace(ADVERT, models=(replace(SERVED, offer=replace(OFFER, stages=(FAR_STAGE,))),)),
        replace(ADVERT, claims=(CLAIM,) * 17),
        replace(ADVERT, claims=(replace(CLAIM, model=""),)),
        replace(ADVERT, claims=(replace(CLAIM, room=-1),)),
        replace(ADVERT, claims=(replace(CLAIM, state="w\a"),)),
        replace(ADVERT, models=(replace(SERVED, tokens_per_second=float("nan")),)),
        replace(ADVERT, models=(replace(SERVED, tokens_per_second=-1.0),)),
        replace(ADVERT, models=(replace(SERVED, offer=replace(SERVED.offer, name="")),)),
        replace(ADVERT, models=(replace(SERVED, offer=replace(SERVED.offer, slots=0)),)),
        replace(ADVERT, models=(replace(SERVED, offer=replace(SERVED.offer, aliases=("a",) * 33)),)),
        replace(ADVERT, on_disk=("model",) * (ON_DISK_MAX + 1)),
        replace(ADVERT, on_disk=("a\r",)),
        replace(ADVERT, started=-5),
    ],
)
def test_what_is_beyond_the_limits_is_refused_though_it_is_signed(advert):
    with pytest.raises(PeerError, match="limits"):
        read(signed_as_it_is(advert))


def test_a_body_that_is_too_long_is_refused_unread():
    with pytest.raises(PeerError, match="65536"):
        read(SignedAdvert(b"\x80" * (ADVERT_BYTES_MAX + 1), b"s" * 64))


def test_a_node_with_too_much_to_say_says_what_fits():
    names = tuple(f"{'m' * 190}-{place}" for place in range(700))
    models = (replace(SERVED, offer=replace(SERVED.offer, name="n" * 200, aliases=("a" * 200,) * 20)),) * 80
    said = read(sign_advert(replace(ADVERT, name="at\ntic" + "c" * 300, models=models, on_disk=names), sign))
    assert said.name.startswith("attic") and len(said.name) == NAME_CHARACTERS_MAX
    assert said.models and set(said.models) <= set(models)
    assert said.on_disk == names[: len(said.on_disk)]


@pytest.mark.parametrize(
    "addresses",
    [
        Addresses(("1.2.3.4:5",), "https://" + "r" * 300),
        Addresses(("1.2.3.4:5", "x" * 65, "\n"), "https://ä"),
        Addresses(("1.2.3.4:5", ""), ""),
    ],
)
def test_an_address_that_others_would_refuse_keeps_no_node_from_speaking(addresses):
    said = read(sign_advert(replace(ADVERT, addresses=addresses), sign))
    assert said.addresses == Addresses(("1.2.3.4:5",))


def test_ten_thousand_hostile_adverts_raise_nothing_but_peer_errors():
    whole = sign_advert(ADVERT, sign)
    assert survives(lambda body: read(SignedAdvert(body, whole.signature)), [whole.body], PeerError) > 9000


@given(st.binary(max_size=500), st.binary(max_size=70))
def test_noise_is_no_advert(body, signature):
    with pytest.raises(PeerError):
        read(SignedAdvert(body, signature))
