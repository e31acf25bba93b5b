"""The exact rules of membership; what emerges from them is simulated (`tests/simulation`)."""

from itertools import pairwise
from random import Random

import pytest

from mesh_llm.core.ids import NodeId
from mesh_llm.mesh.admission.signatures import NodeKey
from mesh_llm.mesh.gossip.leaving import is_genuine, signed_leave
from mesh_llm.mesh.gossip.membership import JUMP_MAX, Membership
from mesh_llm.mesh.gossip.membership_events import (
    AckOverdue,
    AdvertHeld,
    Doubted,
    Effect,
    Event,
    Expelled,
    GossipDue,
    Introduced,
    Leaving,
    MemberChanged,
    MemberForgotten,
    MessageReceived,
    ProbeDue,
    RecordsChanged,
    ReportOverdue,
    SendMessage,
    Started,
    StartTimer,
    SuspicionExpired,
    Synchronise,
    TimerFired,
    ViewReceived,
    WantAdvert,
)
from mesh_llm.mesh.gossip.messages import Ack, Gossip, Message, Ping, PingReport, PingRequest
from mesh_llm.mesh.gossip.news import Health, Leave, News
from mesh_llm.mesh.gossip.prober import PROBES_MAX
from mesh_llm.mesh.gossip.roster import GONE_MAX, GONE_SECONDS_MAX, MEMBERS_MAX

ME = NodeId("me")
A, B, C, D, E = (NodeId(name) for name in "abcde")
OTHER_DIGEST = b"otherwis"


class Observer:
    """A machine among members a, b, ..., and what it did last."""

    def __init__(self, *members: NodeId) -> None:
        self.machine = Membership(ME, Random(1), genuine=lambda leave: leave.signature == b"genuine")
        self.now = 100.0
        self.effects: list[Effect] = []
        self.take(Started())
        self.take(AdvertHeld(ME, 1))
        for member in members:
            self.take(AdvertHeld(member, 1))
        self.now += 1.0
        self.take(TimerFired(ProbeDue()))
        for node in members:  # whoever was asked just now has answered
            self.hear(node, Gossip(()))
        self.ticked = self.now
        self.now += 0.7

    def take(self, event: Event) -> list[Effect]:
        self.effects = self.machine.handle(event, self.now)
        return self.effects

    def hear(self, sender: NodeId, message: Message) -> list[Effect]:
        return self.take(MessageReceived(sender, message))

    def fire(self, kind: type) -> list[Effect]:
        """The last timer of that kind that the last effects started, after its time."""
        started = [e for e in self.effects if isinstance(e, StartTimer) and isinstance(e.timer, kind)][-1]
        due = self.now + started.after
        while self.ticked + 1 < due:  # the process does not stand still meanwhile
            self.ticked += 1
            self.machine.handle(TimerFired(ProbeDue()), self.ticked)
        self.now = due
        return self.take(TimerFired(started.timer))

    def pass_all_on(self) -> None:
        while self.machine.news_waiting:
            self.take(TimerFired(GossipDue()))

    def suspicion(self) -> SuspicionExpired:
        """That has just begun."""
        timers = (e.timer for e in self.effects if isinstance(e, StartTimer))
        return next(timer for timer in timers if isinstance(timer, SuspicionExpired))

    def messages(self, kind: type) -> list[tuple[NodeId, Message]]:
        sent = [e for e in self.effects if isinstance(e, SendMessage)]
        return [(e.to, e.message) for e in sent if isinstance(e.message, kind)]

    def health(self, node: NodeId) -> Health:
        return self.machine.member(node).health

    def bury(self, node: NodeId) -> None:
        self.take(Doubted(node))
        self.fire(ReportOverdue)
        self.fire(SuspicionExpired)
        for other in self.machine.living():
            self.hear(other, Gossip(()))
        for sequence in range(100):  # nothing is awaited any more
            self.take(TimerFired(ReportOverdue(sequence)))
        assert self.health(node) is Health.DEAD


def ping(sequence=1, incarnation=0, version=1, digest=OTHER_DIGEST, busy=0, news=()) -> Ping:
    return Ping(sequence, incarnation, version, digest, busy, tuple(news))


def ack(sequence=1, incarnation=0, version=1, digest=OTHER_DIGEST, busy=0, news=()) -> Ack:
    return Ack(sequence, incarnation, version, digest, busy, tuple(news))


def said(node: NodeId, health: Health, incarnation=0, version=1, signature=b"") -> News:
    return News(node, incarnation, health, version, signature)


def test_silence_leads_over_helpers_and_suspicion_to_death():
    observer = Observer(A, B, C, D)
    observer.take(TimerFired(ProbeDue()))
    [(target, _)] = observer.messages(Ping)
    observer.fire(AckOverdue)
    helpers = observer.messages(PingRequest)
    assert {to for to, _ in helpers} == {A, B, C, D} - {target}
    assert {request.target for _, request in helpers} == {target}
    observer.fire(ReportOverdue)
    assert observer.health(target) is Health.SUSPECT
    observer.fire(SuspicionExpired)
    assert observer.health(target) is Health.DEAD


@pytest.mark.parametrize("message", [ack(99), ping(), Gossip(()), PingRequest(1, NodeId("x"))])
def test_any_message_of_a_suspect_clears_it(message):
    observer = Observer(A, B)
    observer.take(Doubted(A))
    observer.fire(ReportOverdue)
    expiry = observer.suspicion()
    observer.hear(A, message)
    assert observer.health(A) is Health.ALIVE
    observer.take(TimerFired(expiry))
    assert observer.health(A) is Health.ALIVE


def test_a_doubted_member_is_asked_at_once_and_by_all_ways():
    observer = Observer(A, B, C, D)
    observer.take(Doubted(A))
    assert [to for to, _ in observer.messages(Ping)] == [A]
    assert len(observer.messages(PingRequest)) == 3


@pytest.mark.parametrize("health", [Health.SUSPECT, Health.DEAD])
def test_bad_hearsay_only_makes_one_ask(health):
    observer = Observer(A, B, C)
    observer.hear(B, Gossip((said(A, health, incarnation=7),)))
    assert observer.health(A) is Health.ALIVE
    [(to, question)] = observer.messages(Ping)
    assert to == A and said(A, health, incarnation=7) in question.news  # so that it can refute it


def test_hearsay_that_a_dead_one_lives_only_makes_one_ask():
    observer = Observer(A, B)
    observer.bury(A)
    observer.hear(B, Gossip((said(A, Health.ALIVE, incarnation=3),)))
    assert observer.health(A) is Health.DEAD
    assert [to for to, _ in observer.messages(Ping)] == [A]


def test_who_spoke_a_moment_ago_is_not_asked_because_of_hearsay():
    observer = Observer(A, B)
    observer.hear(A, Gossip(()))
    observer.now += 0.3
    observer.hear(B, Gossip((said(A, Health.DEAD),)))
    assert observer.messages(Ping) == []


def test_stale_hearsay_is_passed_over():
    observer = Observer(A, B)
    observer.hear(A, ping(incarnation=4))
    observer.now += 1
    observer.hear(B, Gossip((said(A, Health.DEAD, incarnation=3),)))
    assert observer.messages(Ping) == []


def test_a_rumour_about_oneself_is_refuted_by_a_higher_incarnation():
    observer = Observer(A)
    observer.hear(A, ping(news=[said(ME, Health.SUSPECT, incarnation=5)]))
    assert observer.machine.incarnation == 6
    [(_, answer)] = observer.messages(Ack)
    assert answer.incarnation == 6


def test_nobody_can_exhaust_a_nodes_incarnations():
    observer = Observer(A)
    observer.hear(A, Gossip((said(ME, Health.DEAD, incarnation=JUMP_MAX + 1),)))
    assert observer.machine.incarnation == 0


def test_two_of_three_helpers_must_have_reached_a_member_and_only_they_count():
    observer = Observer(A, B, C, D, E)
    observer.bury(A)
    observer.hear(B, Gossip((said(A, Health.ALIVE, incarnation=1),)))
    (first, request), (second, _), _ = observer.messages(PingRequest)
    [bystander] = {B, C, D, E} - {to for to, _ in observer.messages(PingRequest)}
    report = PingReport(request.sequence, A)
    for sender in (bystander, first, first):
        observer.hear(sender, report)
        assert observer.health(A) is Health.DEAD
    observer.hear(second, PingReport(request.sequence + 1, A))
    assert observer.health(A) is Health.DEAD
    observer.hear(second, report)
    assert observer.health(A) is Health.ALIVE


def test_a_helper_asks_and_reports_once_it_is_answered():
    observer = Observer(A, B)
    observer.hear(B, PingRequest(77, A))
    [(to, question)] = observer.messages(Ping)
    assert to == A and observer.messages(PingReport) == []
    observer.hear(A, ack(question.sequence))
    assert observer.messages(PingReport) == [(B, PingReport(77, A))]
    observer.hear(A, ack(question.sequence))
    assert observer.messages(PingReport) == []


def test_a_helper_asks_no_stranger():
    observer = Observer(B)
    observer.hear(B, PingRequest(77, A))
    assert observer.messages(Ping) == []


def test_a_stranger_in_the_news_is_a_member_only_when_its_advert_is_held():
    observer = Observer(A)
    assert WantAdvert(B, 3, A) in observer.hear(A, Gossip((said(B, Health.ALIVE, version=3),)))
    assert observer.machine.member(B) is None
    [changed] = [e for e in observer.take(AdvertHeld(B, 3)) if isinstance(e, MemberChanged)]
    assert changed.member.node == B and observer.health(B) is Health.ALIVE


def test_a_newer_version_is_wanted_and_not_passed_on_before_it_is_held():
    observer = Observer(A, B)
    assert WantAdvert(B, 9, A) in observer.hear(A, Gossip((said(B, Health.ALIVE, version=9),)))
    assert {news.version for news in observer.machine.view() if news.node == B} == {1}
    observer.take(AdvertHeld(B, 9))
    assert {news.version for news in observer.machine.view() if news.node == B} == {9}


def test_who_is_introduced_counts_as_living_only_when_it_answers():
    observer = Observer()
    observer.take(Introduced((A, ME)))
    [(to, question)] = observer.messages(Ping)
    assert to == A and observer.machine.living() == ()
    effects = observer.hear(A, ack(question.sequence))
    assert observer.machine.living() == (A,)
    assert Synchronise(A) in effects


def leave_of(node: NodeId, incarnation=0, signature=b"genuine") -> Gossip:
    return Gossip((said(node, Health.LEFT, incarnation=incarnation, signature=signature),))


def test_a_leave_is_believed_from_anybody_if_the_leaver_signed_it():
    observer = Observer(A, B)
    observer.hear(B, leave_of(A))
    assert observer.health(A) is Health.LEFT
    assert observer.machine.living() == (B,)


def test_a_forged_leave_is_counted_and_not_believed_even_from_the_leaver():
    observer = Observer(A, B)
    observer.hear(B, leave_of(A, signature=b"forged"))
    observer.hear(A, leave_of(A, signature=b"forged"))
    assert observer.health(A) is Health.ALIVE
    assert observer.machine.forged_leaves == 2


def test_a_leave_of_an_earlier_life_is_not_believed():
    observer = Observer(A, B)
    observer.hear(A, ping(incarnation=3))
    observer.hear(B, leave_of(A, incarnation=2))
    assert observer.health(A) is Health.ALIVE


def test_a_message_that_a_leave_overtook_does_not_bring_the_leaver_back():
    observer = Observer(A, B)
    observer.hear(A, leave_of(A))
    observer.hear(A, Gossip(()))
    observer.hear(A, ack())
    assert observer.health(A) is Health.LEFT


def test_who_comes_back_after_its_leave_is_told_of_it_and_then_believed():
    observer = Observer(A, B)
    observer.hear(A, leave_of(A, incarnation=2))
    observer.hear(A, ping(incarnation=0))
    [(_, answer)] = observer.messages(Ack)
    assert said(A, Health.LEFT, incarnation=2, signature=b"genuine") in answer.news
    observer.hear(A, ping(incarnation=3))
    assert observer.health(A) is Health.ALIVE
    assert observer.machine.member(A).signature == b""


def test_a_node_that_says_less_than_is_known_of_it_is_told():
    observer = Observer(A, B)
    observer.take(AdvertHeld(A, 5))
    observer.hear(A, ping(incarnation=3, version=5))
    observer.pass_all_on()
    for behind in (ping(incarnation=0, version=5), ping(incarnation=3, version=4)):
        observer.hear(A, behind)
        [(_, answer)] = observer.messages(Ack)
        assert answer.news == (said(A, Health.ALIVE, incarnation=3, version=5),)
    observer.hear(A, ping(incarnation=3, version=5))
    [(_, answer)] = observer.messages(Ack)
    assert answer.news == ()


def test_every_second_question_goes_to_the_next_in_the_ring_and_the_others_to_all():
    observer = Observer(A, B, C, D, E)
    asked = []
    for _ in range(20):
        observer.now = observer.ticked = observer.ticked + 1
        observer.take(TimerFired(ProbeDue()))
        [(to, question)] = observer.messages(Ping)
        asked.append(to)
        observer.hear(to, ack(question.sequence))
    assert {tuple(asked[0::2]), tuple(asked[1::2])} >= {(A,) * 10}  # "me" is the last of the ring
    assert set(asked[0::2]) | set(asked[1::2]) == {A, B, C, D, E}


def test_who_leaves_tells_everybody_and_asks_nobody_any_more():
    observer = Observer(A, B)
    observer.take(Leaving(Leave(ME, 0, b"genuine")))
    told = observer.messages(Gossip)
    assert sorted(to for to, _ in told) == [A, B]
    assert all(said(ME, Health.LEFT, signature=b"genuine") in gossip.news for _, gossip in told)
    assert observer.take(TimerFired(ProbeDue())) == []


def test_a_real_leave_verifies_and_covers_node_and_incarnation():
    key, other = NodeKey.draw(Random(1)), NodeKey.draw(Random(2))
    leave = signed_leave(key, 5)
    assert is_genuine(leave)
    assert not is_genuine(Leave(key.node, 6, leave.signature))
    assert not is_genuine(Leave(other.node, 5, leave.signature))
    assert not is_genuine(Leave(NodeId("me"), 5, leave.signature))


def test_a_process_that_stood_still_asks_again_instead_of_judging():
    observer = Observer(A, B, C)
    observer.take(TimerFired(ProbeDue()))
    overdue = [e.timer for e in observer.effects if isinstance(e, StartTimer) and e.timer != ProbeDue()][-1]
    [(target, _)] = observer.messages(Ping)
    observer.now += 30
    observer.take(TimerFired(overdue))
    assert observer.messages(PingRequest) == []
    observer.take(TimerFired(ProbeDue()))
    assert target in [to for to, _ in observer.messages(Ping)]
    assert observer.health(target) is Health.ALIVE


def test_a_suspicion_that_ran_out_while_the_process_stood_still_begins_anew():
    observer = Observer(A, B)
    observer.take(Doubted(A))
    observer.fire(ReportOverdue)
    expiry = observer.suspicion()
    observer.now += 30
    observer.take(TimerFired(expiry))
    assert observer.health(A) is Health.SUSPECT
    observer.fire(SuspicionExpired)
    assert observer.health(A) is Health.DEAD


def test_a_view_full_of_bad_news_is_worked_off_not_fired_off():
    crowd = [NodeId(f"n{place:03}") for place in range(100)]
    observer = Observer(*crowd)
    observer.take(ViewReceived(crowd[0], tuple(said(node, Health.DEAD) for node in crowd[1:])))
    assert len(observer.messages(Ping)) == PROBES_MAX


def test_views_that_differ_for_long_are_exchanged_and_not_over_and_over():
    observer = Observer(A)
    exchanged = []
    for _ in range(60):
        observer.now += 1
        observer.take(TimerFired(ProbeDue()))
        observer.hear(A, ack(observer.messages(Ping)[0][1].sequence))
        exchanged += [observer.now for e in observer.effects if isinstance(e, Synchronise)]
    waits = [round(later - sooner) for sooner, later in pairwise(exchanged)]
    assert exchanged[0] - 101 <= 6
    assert waits[:3] == sorted(waits[:3]) and waits[0] >= 5 and len(exchanged) <= 5


def test_equal_views_are_not_exchanged():
    observer = Observer(A)
    for _ in range(60):
        observer.now += 1
        effects = observer.hear(A, ping(digest=observer.machine.digest))
        assert not [e for e in effects if isinstance(e, Synchronise)]


def test_the_answer_to_a_view_is_what_it_lacks():
    observer = Observer(A, B, C)
    observer.bury(C)
    theirs = (said(A, Health.ALIVE), said(C, Health.ALIVE), said(ME, Health.ALIVE))
    assert [news.node for news in observer.machine.answer_to(theirs)] == [B, C]


def test_records_count_in_the_digest_and_so_does_nothing_else_of_them():
    observer = Observer(A)
    before = observer.machine.digest
    observer.take(RecordsChanged(b"expelled"))
    assert observer.machine.digest != before
    observer.take(RecordsChanged(b""))
    assert observer.machine.digest == before


def test_who_is_expelled_is_forgotten_and_not_heard_again():
    observer = Observer(A, B)
    assert MemberForgotten(A) in observer.take(Expelled(A))
    assert observer.hear(A, ping()) == []
    observer.hear(B, Gossip((said(A, Health.ALIVE, version=9),)))
    observer.take(AdvertHeld(A, 9))
    observer.take(Introduced((A,)))
    assert observer.machine.living() == (B,)


def test_the_gone_are_bounded_and_the_living_too():
    observer = Observer(*[NodeId(f"n{place:04}") for place in range(MEMBERS_MAX + 1)])
    assert len(observer.machine.living()) == MEMBERS_MAX
    observer.take(Introduced(tuple(NodeId(f"ghost {place}") for place in range(GONE_MAX + 50))))
    forgotten = [e for e in observer.take(TimerFired(ProbeDue())) if isinstance(e, MemberForgotten)]
    assert len(forgotten) == 50
    assert len(observer.machine.members()) == MEMBERS_MAX + GONE_MAX


def test_the_gone_are_forgotten_after_an_hour():
    observer = Observer(A, B)
    observer.bury(A)
    observer.now += GONE_SECONDS_MAX + 1
    assert MemberForgotten(A) in observer.take(TimerFired(ProbeDue()))


def test_others_hear_how_busy_one_is():
    observer = Observer(A)
    observer.machine.busy = 7
    observer.hear(A, ping(busy=3))
    [(_, answer)] = observer.messages(Ack)
    assert answer.busy == 7
    assert observer.machine.busy_of == {A: 3}
