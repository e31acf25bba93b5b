"""One of those that want a model leads it, and everybody who hears the same agrees on whom."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesh_llm.core.ids import NodeId
from mesh_llm.core.quantities import GIB
from mesh_llm.core.stages import SplitClaim
from mesh_llm.splits.claims import SETTLE_S, Candidacy, Follow, Lead, Settling, is_leading, precedence

A, B, C = (NodeId(digit * 64) for digit in "abc")
MODEL = "big"


def claim(state: str = "wanting", room: int = GIB) -> SplitClaim:
    return SplitClaim(MODEL, state, room)


def leading(me: NodeId = B, *, serves: bool = False) -> Candidacy:
    candidacy = Candidacy(me, MODEL, GIB)
    candidacy.handle({}, 0.0)
    assert candidacy.handle({}, SETTLE_S) == Lead()
    candidacy.serving(serves)
    return candidacy


def test_who_is_alone_leads_after_a_moment() -> None:
    candidacy = Candidacy(B, MODEL, GIB)
    assert candidacy.claim == claim("wanting")
    assert candidacy.handle({}, 10.0) == Settling(until=10.0 + SETTLE_S)
    assert candidacy.handle({}, 9.9 + SETTLE_S) == Settling(until=10.0 + SETTLE_S)
    assert candidacy.handle({}, 10.0 + SETTLE_S) == Lead()
    assert candidacy.claim == claim("leading")


def test_who_leads_or_serves_is_followed_at_once() -> None:
    for state in ("leading", "serving"):
        candidacy = Candidacy(A, MODEL, 9 * GIB)
        assert candidacy.handle({B: claim(), C: claim(state)}, 0.0) == Follow(C)
        assert candidacy.claim.state == "wanting"


def test_among_those_that_only_want_the_roomiest_comes_first_then_the_lowest() -> None:
    assert Candidacy(A, MODEL, GIB).handle({B: claim(room=2 * GIB)}, 0.0) == Settling(until=None)
    assert Candidacy(B, MODEL, GIB).handle({A: claim()}, 0.0) == Settling(until=None)
    assert Candidacy(B, MODEL, GIB).handle({C: claim()}, 0.0) == Settling(until=SETTLE_S)


def test_the_moment_begins_anew_when_somebody_came_first_in_between() -> None:
    candidacy = Candidacy(B, MODEL, GIB)
    candidacy.handle({}, 0.0)
    assert candidacy.handle({A: claim()}, 2.0) == Settling(until=None)
    assert candidacy.handle({}, 2.5) == Settling(until=2.5 + SETTLE_S)


def test_a_leader_that_is_gone_is_replaced_after_a_moment() -> None:
    candidacy = Candidacy(B, MODEL, GIB)
    candidacy.handle({C: claim("serving")}, 0.0)
    assert candidacy.handle({}, 100.0) == Settling(until=100.0 + SETTLE_S)
    assert candidacy.handle({}, 100.0 + SETTLE_S) == Lead()


def test_a_newcomer_does_not_unseat_who_leads() -> None:
    assert leading().handle({A: claim(room=99 * GIB)}, 10.0) == Lead()
    assert leading(serves=True).handle({A: claim("leading", room=99 * GIB)}, 10.0) == Lead()


def test_of_two_that_load_one_yields_at_once() -> None:
    yields = leading()
    assert yields.handle({A: claim("leading")}, 10.0) == Follow(A)
    assert yields.claim.state == "wanting"
    assert leading().handle({C: claim("leading")}, 10.0) == Lead()
    assert leading().handle({C: claim("serving")}, 10.0) == Follow(C)


def test_of_two_that_serve_one_yields_once_the_other_has_lasted() -> None:
    yields = leading(serves=True)
    assert yields.handle({A: claim("serving")}, 10.0) == Lead()
    yields.serving(True)
    assert yields.handle({A: claim("serving")}, 10.0 + SETTLE_S) == Follow(A)
    assert leading(serves=True).handle({C: claim("serving")}, 100.0) == Lead()


def test_of_two_that_serve_none_yields_to_one_that_was_there_for_a_moment() -> None:
    candidacy = leading(serves=True)
    candidacy.handle({A: claim("serving")}, 10.0)
    assert candidacy.handle({}, 11.0) == Lead()
    assert candidacy.handle({A: claim("serving")}, 20.0) == Lead()


def test_who_no_longer_answers_leads_on_and_who_only_wants_cannot_serve() -> None:
    candidacy = leading(serves=True)
    candidacy.serving(False)
    assert candidacy.claim.state == "leading"
    wanting = Candidacy(A, MODEL, GIB)
    wanting.serving(True)
    assert wanting.claim.state == "wanting"


@pytest.mark.parametrize("state", ["", "SERVING", "reigning"])
def test_a_state_that_nobody_knows_is_no_more_than_a_wish(state: str) -> None:
    assert not is_leading(claim(state))
    assert precedence(A, claim(state)) == precedence(A, claim("wanting"))


CLAIMS = st.dictionaries(
    st.sampled_from([A, B, C]),
    st.builds(claim, st.sampled_from(["wanting", "leading", "serving", "?"]), st.integers(0, 3)),
    min_size=1,
)


@given(CLAIMS)
def test_all_who_hear_the_same_agree(claims: dict[NodeId, SplitClaim]) -> None:
    """Everybody wants for long enough, and takes the others by these claims for ever."""
    first = min(precedence(node, each) for node, each in claims.items())[2]
    for me, mine in claims.items():
        others = {node: each for node, each in claims.items() if node != me}
        candidacy = Candidacy(me, MODEL, mine.room)
        candidacy.handle(others, 0.0)
        standing = candidacy.handle(others, SETTLE_S)
        if is_leading(mine):
            continue
        expected = Follow(first) if is_leading(claims[first]) else Settling(until=None)
        assert standing == (Lead() if me == first else expected)
