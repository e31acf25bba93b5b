from collections.abc import Iterable, Sequence
from random import Random

from hypothesis import given
from hypothesis import strategies as st

from mesh_llm.mesh.admission.admission import Admission
from mesh_llm.mesh.admission.certificates import verified
from mesh_llm.mesh.admission.expulsions import Expulsions, descendants
from mesh_llm.mesh.admission.notices import Expulsion, decode_notice, expulsion
from tests.mesh.members import NOW, founder, key, key_of, let_in, line


def expelled(by: Admission, node: Admission, *spared: Admission) -> Expulsion:
    notice = expulsion(key_of(by), by.certificate, node.me, [each.me for each in spared], NOW)
    decoded = decode_notice(notice)
    assert isinstance(decoded, Expulsion)
    return decoded


def out(known: Iterable[Expulsion], members: Sequence[Admission]) -> list[int]:
    """Which of these, by their place, are out."""
    expulsions = Expulsions(known)
    return [place for place, member in enumerate(members) if expulsions.out(verified(member.certificate))]


def test_without_expulsions_all_are_in():
    assert out([], line(1, 2, 3)) == []


def test_who_was_let_in_by_an_expelled_node_goes_with_it():
    members = line(1, 2, 3, 4)
    assert out([expelled(members[0], members[1])], members) == [1, 2, 3]


def test_who_is_spared_stays_and_whom_they_let_in_later_too():
    members = line(1, 2, 3, 4)
    known = [expelled(members[0], members[1], members[2])]
    assert out(known, members) == [1]
    later = let_in(members[2], 5)
    assert out(known, [later]) == []


def test_whom_the_expelled_node_lets_in_afterwards_is_out():
    members = line(1, 2, 3)
    known = [expelled(members[0], members[1], members[2])]
    assert out(known, [let_in(members[1], 9)]) == [0]


def test_all_who_expelled_a_node_must_spare_its_guest():
    members = line(1, 2, 3)
    other = let_in(members[0], 4)
    spares, does_not = expelled(members[0], members[1], members[2]), expelled(other, members[1])
    assert out([spares], members) == [1]
    assert out([spares, does_not], members) == [1, 2]


def test_anyone_may_expel_even_the_founder():
    members = line(1, 2, 3)
    assert out([expelled(members[2], members[0], members[1])], members) == [0]


def test_an_expelled_node_takes_nobody_along_who_is_no_guest_of_it():
    first = founder()
    kicked, bystander = let_in(first, 2), let_in(first, 3)
    known = [expelled(first, kicked), expelled(kicked, bystander)]
    assert out(known, [first, kicked, bystander]) == [1]


def test_the_guests_of_an_expelled_node_take_nobody_along_either():
    first = founder()
    kicked, bystander = let_in(first, 2), let_in(first, 3)
    puppet = let_in(kicked, 4)
    known = [expelled(first, kicked), expelled(puppet, bystander), expelled(puppet, first)]
    assert out(known, [first, kicked, bystander, puppet]) == [1, 3]


def test_equals_who_expel_each_other_are_both_out():
    first = founder()
    one, other = let_in(first, 2), let_in(first, 3)
    assert out([expelled(one, other), expelled(other, one)], [first, one, other]) == [1, 2]


def test_a_junior_cannot_make_a_seniors_expulsion_void():
    first = founder()
    senior, victim = let_in(first, 2), let_in(first, 3)
    junior = let_in(victim, 4)
    known = [expelled(senior, victim, junior), expelled(junior, senior, first)]
    assert out(known, [first, senior, victim, junior]) == [1, 2]


def test_an_expulsion_comes_back_when_what_voided_it_is_void_itself():
    first = founder()
    second = let_in(first, 2)
    third = let_in(first, 3)
    fourth = let_in(third, 4)
    fifth = let_in(fourth, 5)
    by_fourth = expelled(fourth, fifth)
    by_second = expelled(second, fourth, fifth)
    by_first = expelled(first, second)
    members = [first, second, third, fourth, fifth]
    assert out([by_fourth], members) == [4]
    assert out([by_fourth, by_second], members) == [3]
    assert out([by_fourth, by_second, by_first], members) == [1, 4]


def test_a_node_that_took_itself_out_is_out_whatever_was_said_of_it():
    first = founder()
    second = let_in(first, 2)
    known = [expelled(first, second), expelled(second, second)]
    assert len(Expulsions(known).effective()) == 2
    assert out(known, [first, second]) == [1]


def test_what_a_node_said_before_it_replaced_its_key_stands():
    first = founder()
    second, third = let_in(first, 2), let_in(first, 3)
    assert out([expelled(second, third), expelled(second, second)], [first, second, third]) == [1, 2]


def test_a_node_that_came_in_twice_does_not_undo_its_own_words_by_replacing_its_key():
    first = founder()
    third = let_in(first, 3)
    senior, junior, other = let_in(first, 2), let_in(third, 2), let_in(third, 4)
    assert out([expelled(junior, other), expelled(senior, senior)], [first, third, other]) == [2]


def test_nobody_is_spared_by_the_notice_that_removes_it():
    members = line(1, 2, 3)
    assert out([expelled(members[0], members[1], members[1])], members) == [1, 2]


def test_a_stolen_key_cannot_let_anybody_in_after_it_was_replaced():
    first = founder()
    victim = let_in(first, 2)
    replaced, thief = let_in(victim, 3), let_in(victim, 4)
    known = [expelled(victim, victim, replaced), expelled(victim, victim, thief)]
    assert 1 in out(known, [victim, thief])


FAMILY = [*line(1, 2, 3, 4), *line(1, 5, 6)[1:]]
EVERYTHING = [
    expelled(one, other, *Random(a * 10 + b).sample(FAMILY, 2))
    for a, one in enumerate(FAMILY)
    for b, other in enumerate(FAMILY)
]


@given(st.lists(st.sampled_from(EVERYTHING), max_size=12), st.randoms(use_true_random=False))
def test_the_order_in_which_expulsions_came_does_not_matter(known: list[Expulsion], chance: Random):
    shuffled = [*known, *known[:3]]
    chance.shuffle(shuffled)
    assert out(known, FAMILY) == out(shuffled, FAMILY)


@given(st.lists(st.sampled_from(EVERYTHING), max_size=12))
def test_the_most_senior_of_those_who_expel_is_heard(known: list[Expulsion]):
    heard = Expulsions(known).effective()
    senior = min((each.by.depth for each in known), default=0)
    assert all(each in heard for each in known if each.by.depth == senior or each.own)


def test_descendants_are_those_whose_membership_hangs_on_a_node():
    standings = [verified(member.certificate) for member in line(1, 2, 3, 4)]
    assert descendants(key(2).node, standings) == {key(3).node, key(4).node}
