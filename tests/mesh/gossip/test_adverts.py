"""Whose advert is asked of whom, and what is kept of the answers."""

from dataclasses import replace
from random import Random

import pytest

from mesh_llm.mesh.admission.signatures import NodeKey
from mesh_llm.mesh.gossip.advert import DOMAIN, Advert, SignedAdvert, sign_advert
from mesh_llm.mesh.gossip.adverts import (
    DISTRUST_MIN_S,
    FETCHES_MAX,
    SOURCES_MAX,
    WANTS_MAX,
    AdvertChanged,
    Adverts,
    Announced,
    AnnounceOwn,
    Fetch,
    FetchEnded,
    Forgotten,
    OwnChanged,
    Received,
)
from mesh_llm.mesh.gossip.exchange import WANTED_MAX
from mesh_llm.mesh.transport import PeerError

ME, SUBJECT, PEER, THIRD = (NodeKey.draw(Random(number)) for number in range(4))


def machine(admit=lambda advert: None) -> Adverts:
    return Adverts(ME.node, Random(1), lambda body: ME.sign(DOMAIN, body), admit)


def advert(version: int, key: NodeKey = SUBJECT, name: str = "attic") -> SignedAdvert:
    return sign_advert(Advert(key.node, version, name), lambda body: key.sign(DOMAIN, body))


def holding(version: int) -> Adverts:
    adverts = machine()
    adverts.handle(Announced(SUBJECT.node, version, PEER.node), 0)
    adverts.handle(Received(advert(version), PEER.node), 0)
    adverts.handle(FetchEnded(PEER.node), 0)
    return adverts


def test_what_is_announced_is_asked_of_who_announced_it():
    adverts = machine()
    assert adverts.handle(Announced(SUBJECT.node, 3, PEER.node), 0) == [Fetch((SUBJECT.node,), PEER.node)]
    [changed] = adverts.handle(Received(advert(3), PEER.node), 0)
    assert changed == AdvertChanged(adverts.get(SUBJECT.node))
    assert adverts.handle(FetchEnded(PEER.node), 0) == []


@pytest.mark.parametrize("version", [1, 3])
def test_nothing_is_asked_for_that_is_held(version):
    assert holding(3).handle(Announced(SUBJECT.node, version, PEER.node), 0) == []


def test_an_older_answer_changes_nothing():
    adverts = holding(3)
    adverts.handle(Announced(SUBJECT.node, 9, PEER.node), 0)
    assert adverts.handle(Received(advert(2, name="old"), PEER.node), 0) == []
    assert adverts.get(SUBJECT.node).name == "attic"


def test_a_node_is_asked_for_one_exchange_at_a_time_and_an_advert_of_one_node():
    adverts = machine()
    adverts.handle(Announced(SUBJECT.node, 3, PEER.node), 0)
    assert adverts.handle(Announced(THIRD.node, 3, PEER.node), 0) == []
    assert adverts.handle(Announced(SUBJECT.node, 3, THIRD.node), 0) == []
    adverts.handle(Received(advert(3), PEER.node), 0)
    assert adverts.handle(FetchEnded(PEER.node), 0) == [Fetch((THIRD.node,), PEER.node)]


def test_what_one_does_not_deliver_is_asked_of_the_next():
    adverts = machine()
    adverts.handle(Announced(SUBJECT.node, 3, PEER.node), 0)
    adverts.handle(Announced(SUBJECT.node, 3, THIRD.node), 0)
    assert adverts.handle(FetchEnded(PEER.node), 0) == [Fetch((SUBJECT.node,), THIRD.node)]


def test_who_does_not_deliver_is_not_listened_to_for_a_while_that_doubles():
    adverts = machine()
    now = 0.0
    for wait in (DISTRUST_MIN_S, 2 * DISTRUST_MIN_S, 4 * DISTRUST_MIN_S):
        assert adverts.handle(Announced(SUBJECT.node, 3, PEER.node), now) != []
        adverts.handle(FetchEnded(PEER.node), now)
        assert adverts.handle(Announced(SUBJECT.node, 3, PEER.node), now + wait - 0.1) == []
        now += wait


def test_an_invented_version_does_not_make_others_who_tell_the_truth_suspicious():
    adverts = holding(3)
    adverts.handle(Announced(SUBJECT.node, 1000, PEER.node), 0)
    adverts.handle(Announced(SUBJECT.node, 4, THIRD.node), 0)
    assert adverts.handle(FetchEnded(PEER.node), 0) == [Fetch((SUBJECT.node,), THIRD.node)]
    adverts.handle(Received(advert(4), THIRD.node), 0)
    adverts.handle(FetchEnded(THIRD.node), 0)
    assert adverts.handle(Announced(SUBJECT.node, 5, THIRD.node), 0) == [Fetch((SUBJECT.node,), THIRD.node)]


def test_what_nobody_asked_for_is_refused():
    with pytest.raises(PeerError, match="asked"):
        machine().handle(Received(advert(3), PEER.node), 0)


def test_a_forgery_is_refused_and_the_next_one_is_asked():
    adverts = machine()
    adverts.handle(Announced(SUBJECT.node, 3, PEER.node), 0)
    adverts.handle(Announced(SUBJECT.node, 3, THIRD.node), 0)
    with pytest.raises(PeerError, match="signed"):
        adverts.handle(Received(replace(advert(3), signature=b"f" * 64), PEER.node), 0)
    assert adverts.handle(FetchEnded(PEER.node), 0) == [Fetch((SUBJECT.node,), THIRD.node)]


def test_who_is_not_admitted_is_not_held():
    def refuse(said: Advert) -> None:
        raise PeerError("expelled")

    adverts = machine(refuse)
    adverts.handle(Announced(SUBJECT.node, 3, PEER.node), 0)
    with pytest.raises(PeerError, match="expelled"):
        adverts.handle(Received(advert(3), PEER.node), 0)
    assert adverts.get(SUBJECT.node) is None


def test_fetches_are_bounded_in_size_and_number():
    adverts = machine()
    peers = [NodeKey.draw(Random(f"peer {place}")).node for place in range(FETCHES_MAX + 3)]
    asked = [adverts.handle(Announced(peer, 1, peer), 0) for peer in peers]
    assert [len(effects) for effects in asked] == [1] * FETCHES_MAX + [0] * 3
    crowd = [f"{place:064x}" for place in range(WANTED_MAX + 5)]
    for node in crowd:
        adverts.handle(Announced(node, 1, peers[0]), 0)
    batches = adverts.handle(FetchEnded(peers[0]), 0)
    assert all(len(batch.nodes) <= WANTED_MAX for batch in batches)


def test_a_liar_with_endless_names_fills_no_memory():
    adverts = machine()
    for place in range(WANTS_MAX + 500):
        adverts.handle(Announced(f"{place:064x}", 1, PEER.node), 0)
    for place in range(SOURCES_MAX + 5):
        adverts.handle(Announced(SUBJECT.node, 1, f"{place:064x}"), 0)
    assert adverts.waiting <= WANTS_MAX


def test_a_change_of_ones_own_is_announced_once():
    adverts = machine()
    [first] = adverts.handle(OwnChanged(Advert(ME.node, 0, "attic")), 0)
    assert adverts.handle(OwnChanged(Advert(ME.node, 0, "attic")), 0) == []
    [second] = adverts.handle(OwnChanged(Advert(ME.node, 0, "cellar")), 0)
    assert (first.node, second.version) == (ME.node, first.version + 1)
    held = adverts.get(ME.node)
    assert held is not None and held.name == "cellar"


def test_a_node_outdoes_what_it_said_in_an_earlier_life():
    adverts = machine()
    [own] = adverts.handle(OwnChanged(Advert(ME.node, 0, "attic")), 0)
    [again] = adverts.handle(Announced(ME.node, own.version + 1000, PEER.node), 0)
    assert again == AnnounceOwn(ME.node, adverts.get(ME.node).version)
    assert again.version > own.version + 1000
    assert adverts.handle(Announced(ME.node, again.version, PEER.node), 0) == []


def test_nobody_can_exhaust_a_nodes_versions():
    adverts = machine()
    adverts.handle(OwnChanged(Advert(ME.node, 0, "attic")), 0)
    assert adverts.handle(Announced(ME.node, 2**62, PEER.node), 0) == []


def test_who_is_forgotten_is_forgotten_here_too():
    adverts = holding(3)
    adverts.handle(Forgotten(SUBJECT.node), 0)
    assert adverts.get(SUBJECT.node) is None
    assert adverts.handle(Announced(SUBJECT.node, 3, PEER.node), 0) == [Fetch((SUBJECT.node,), PEER.node)]


def test_who_asks_gets_what_is_held_as_it_was_signed():
    adverts = holding(3)
    assert list(adverts.answer_to((SUBJECT.node, THIRD.node))) == [advert(3)]
