"""A node lends memory to one leader of a model, and not to one that its own view speaks against."""

from mesh_llm.core.ids import NodeId
from mesh_llm.core.quantities import GIB
from mesh_llm.core.stages import SplitClaim
from mesh_llm.splits.leases import Lease, Leases

A, B, C = (NodeId(digit * 64) for digit in "abc")
MODEL = "big"
ROOM = 10 * GIB


def lease(leader: NodeId, gib: int = 4, model: str = MODEL) -> Lease:
    return Lease(model, leader, gib * GIB)


def claims(**states: str) -> dict[NodeId, SplitClaim]:
    return {NodeId(name * 64): SplitClaim(MODEL, state, GIB) for name, state in states.items()}


def test_memory_is_lent_to_who_asks_first() -> None:
    leases = Leases()
    assert leases.ask(lease(A), ROOM, claims(a="leading")) is None
    assert leases.get(MODEL) == lease(A) and leases.bytes_lent == 4 * GIB


def test_one_model_is_held_for_one_leader_until_that_lets_it_go() -> None:
    leases = Leases()
    leases.ask(lease(B), ROOM, {})
    assert "for bbbbbbbbbb already" in str(leases.ask(lease(A), ROOM, {}))
    assert "already" in str(leases.ask(lease(B), ROOM, {}))
    leases.end(lease(B))
    assert leases.ask(lease(A), ROOM, {}) is None


def test_the_end_of_an_old_lease_ends_no_newer_one() -> None:
    leases = Leases()
    leases.ask(lease(B), ROOM, {})
    leases.end(lease(B))
    leases.ask(lease(A), ROOM, {})
    leases.end(lease(B))
    assert leases.get(MODEL) == lease(A)


def test_another_model_is_lent_what_is_left() -> None:
    leases = Leases()
    leases.ask(lease(A, 4), ROOM, {})
    assert leases.ask(lease(B, 7, "other"), ROOM, {}) == "7.5 GB are more than the 6.4 GB that are free"
    assert leases.ask(lease(B, 6, "other"), ROOM, {}) is None


def test_who_is_not_the_leader_in_this_nodes_view_gets_nothing() -> None:
    for seen in (claims(a="leading", b="leading"), claims(a="serving", b="leading"), claims(c="serving")):
        assert "leads that model" in str(Leases().ask(lease(B), ROOM, seen))


def test_who_asks_counts_as_leading_though_word_of_it_has_not_come_yet() -> None:
    assert Leases().ask(lease(B), ROOM, {}) is None
    assert Leases().ask(lease(B), ROOM, claims(a="wanting", b="wanting")) is None
    assert Leases().ask(lease(B), ROOM, claims(b="wanting", c="leading")) is None


def test_a_later_one_that_leads_too_does_not_speak_against_the_first() -> None:
    assert Leases().ask(lease(A), ROOM, claims(a="leading", b="leading", c="leading")) is None
