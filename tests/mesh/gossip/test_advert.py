"""Adverts: signed by their node, within limits, readable by older and newer peers."""

import json
from dataclasses import replace
from random import Random
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesh_llm.core.experts import Quality
from mesh_llm.core.offers import CutOffer, ModelOffer, ServedOffer
from mesh_llm.core.stages import LayerRange, SplitClaim, StageHolding
from mesh_llm.mesh.admission.signatures import NodeKey
from mesh_llm.mesh.gossip.advert import (
    ADVERT_BYTES_MAX,
    DOMAIN,
    EXPERTS_MAX,
    KL_MAX,
    MODELS_MAX,
    NAME_CHARACTERS_MAX,
    ON_DISK_MAX,
    PERPLEXITY_MAX,
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
QUALITY = Quality(25.0, 20.0, 0.5, 0.6, 1020)
CUT = CutOffer("5e2f" * 16, "ab" * 16, "cd" * 16, 12, 16, QUALITY)
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


# -- cuts of mixtures ----------------------------------------------------------------------------------------


def cutting(cut: CutOffer | None) -> Advert:
    return replace(ADVERT, models=(replace(SERVED, offer=replace(OFFER, cut=cut)),))


def with_cut(cut: object) -> SignedAdvert:
    """As a peer may write it that holds to no types."""
    said: Any = msgspec.to_builtins(ADVERT, builtin_types=(bytes,))
    said["models"][0]["offer"]["cut"] = cut
    return signed_as_it_is(said)


@pytest.mark.parametrize(
    "cut",
    [
        CUT,
        replace(CUT, quality=None),
        replace(CUT, kept=16),
        replace(CUT, kept=EXPERTS_MAX, experts=EXPERTS_MAX),
        CutOffer("5e2f"),
        replace(CUT, quality=Quality(1.0, 1.0, -0.001, 0.0, 1)),
        replace(CUT, quality=Quality(PERPLEXITY_MAX, 1.0, KL_MAX, 1.0, 2**62)),
        None,
    ],
)
def test_a_cut_is_read_as_it_was_said(cut: CutOffer | None):
    assert read(sign_advert(cutting(cut), sign)) == cutting(cut)


@pytest.mark.parametrize(
    "cut",
    [
        replace(CUT, kept=17),
        replace(CUT, kept=-1),
        replace(CUT, experts=-1, kept=-2),
        replace(CUT, experts=EXPERTS_MAX + 1),
        replace(CUT, experts=2**63, kept=2**63),
        replace(CUT, model=""),
        replace(CUT, model="a" * 2000),
        replace(CUT, model="a\n"),
        replace(CUT, ranking="a" * (NAME_CHARACTERS_MAX + 1)),
        replace(CUT, choice="\x1b[2J"),
        replace(CUT, measuring="n\now"),
        *(
            replace(CUT, quality=replace(QUALITY, **{name: value}))
            for name in ("perplexity", "full_perplexity", "kl", "same_top")
            for value in (float("nan"), float("inf"), float("-inf"), -2.0, 1e300)
        ),
        replace(CUT, quality=replace(QUALITY, perplexity=0.99)),
        replace(CUT, quality=replace(QUALITY, full_perplexity=0.0)),
        replace(CUT, quality=replace(QUALITY, same_top=1.01)),
        replace(CUT, quality=replace(QUALITY, tokens=0)),
        replace(CUT, quality=replace(QUALITY, tokens=-1)),
        replace(CUT, quality=replace(QUALITY, tokens=2**63)),
    ],
    ids=str,
)
def test_a_cut_that_cannot_be_is_refused_with_all_that_its_node_says(cut: CutOffer):
    with pytest.raises(PeerError, match="models is not within its limits"):
        read(signed_as_it_is(cutting(cut)))


@pytest.mark.parametrize(
    "cut",
    [
        7,
        [],
        "cut",
        {},
        {"kept": 12},
        {"model": 7},
        {"model": "5e2f", "kept": "12"},
        {"model": "5e2f", "kept": 12.5, "experts": 16},
        {"model": "5e2f", "kept": True, "experts": 16},
        {"model": "5e2f", "kept": 2**64 - 1, "experts": 16},
        {"model": "5e2f", "quality": {}},
        {"model": "5e2f", "quality": {"perplexity": 25.0}},
        {"model": "5e2f", "quality": 1.25},
    ],
    ids=str,
)
def test_what_is_no_cut_is_refused(cut: object):
    with pytest.raises(PeerError):
        read(with_cut(cut))


def test_fields_of_a_cut_may_be_unknown_or_absent():
    newer: Any = msgspec.to_builtins(CUT)
    newer |= {"islands": [1, {"deep": None}], "quality": newer["quality"] | {"bits": 3.5}}
    assert read(with_cut(newer)) == cutting(CUT)
    assert read(with_cut({"model": CUT.model})) == cutting(CutOffer(CUT.model))


def test_a_node_that_measured_nonsense_serves_its_cut_as_one_that_nobody_measured():
    nonsense = replace(CUT, quality=replace(QUALITY, perplexity=1e200))
    assert read(sign_advert(cutting(nonsense), sign)) == cutting(replace(CUT, quality=None))


def test_many_cuts_and_long_words_stay_within_an_advert():
    words = "\N{SNOWMAN}" * NAME_CHARACTERS_MAX
    cut = replace(CUT, model="5e2f" * 30, ranking=words, choice=words, measuring=words)
    served = replace(SERVED, offer=replace(OFFER, cut=cut))
    signed = sign_advert(replace(ADVERT, models=(served,) * MODELS_MAX), sign)
    assert len(signed.body) <= ADVERT_BYTES_MAX
    assert set(read(signed).models) == {served}


junk = st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats() | st.text(max_size=300)
numbers = st.sampled_from([0, 1, 12, 16, 17, EXPERTS_MAX + 1]) | st.integers(-5, 2**63) | junk
figures = st.floats(0, 100) | st.sampled_from([1, -0.5, 1e300]) | junk
qualities = st.none() | st.fixed_dictionaries(
    {
        "perplexity": figures,
        "full_perplexity": figures,
        "kl": figures,
        "same_top": figures | st.floats(0, 1),
        "tokens": numbers,
    },
    optional={"more": junk},
)
cuts = st.fixed_dictionaries(
    {"model": st.just(CUT.model) | junk},
    optional={
        "ranking": st.text(max_size=300) | junk,
        "choice": st.text(max_size=300) | junk,
        "kept": numbers,
        "experts": numbers,
        "quality": qualities | junk,
        "measuring": st.sampled_from(["would", "now", ""]) | junk,
        "more": st.dictionaries(st.text(max_size=3), junk, max_size=3),
    },
)


@given(cuts | junk)
def test_any_cut_can_be_shown_to_people_or_is_refused(cut: object):
    try:
        said = read(with_cut(cut))
    except PeerError:
        return
    found = said.models[0].offer.cut
    shown = json.dumps(dict(found.shown()) if found else {}, allow_nan=False)
    assert len(shown) < 1000 and "\x1b" not in shown


def test_ten_thousand_damaged_cuts_raise_nothing_but_peer_errors():
    def checked(body: bytes) -> None:
        read(SignedAdvert(body, sign(body)))

    assert survives(checked, [sign_advert(cutting(CUT), sign).body], PeerError) > 5000


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
