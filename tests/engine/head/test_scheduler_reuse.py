"""What one request leaves in the caches, and the next begins with."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mesh_llm.engine.head.steps import Capacity
from mesh_llm.engine.ring.frames import Operation
from tests.engine.head.fake_ring import END, FakeRing, answer_alone
from tests.engine.head.test_scheduler import lasting, prompt

ROOMY = Capacity(context=2000, sequences=4, batch=64, stages=1)

actions = st.lists(
    st.one_of(
        st.tuples(st.just("begin"), st.integers(0, 2), st.integers(1, 100), st.integers(1, 30)),
        st.tuples(st.just("branch"), st.integers(0, 30), st.integers(1, 100), st.integers(1, 30)),
        st.tuples(st.just("next turn"), st.integers(0, 30), st.integers(1, 9), st.integers(1, 30)),
        st.tuples(st.just("cancel"), st.integers(0, 30), st.just(0), st.just(0)),
        st.tuples(st.just("home"), st.integers(1, 12), st.just(0), st.just(0)),
    ),
    max_size=60,
)
capacities = st.builds(
    Capacity,
    context=st.integers(2, 250),
    sequences=st.integers(1, 6),
    batch=st.integers(2, 70),
    stages=st.integers(0, 3),
    forgets=st.booleans(),
)


class History:
    """Requests that begin alike: with one of three texts, with an older prompt and its answer so far."""

    def __init__(self, capacity: Capacity) -> None:
        self.ring = FakeRing(capacity)
        self.asked: list[tuple[tuple[int, ...], int]] = []
        self.cancelled: set[int] = set()

    def do(self, kind: str, number: int, length: int, tokens_max: int) -> None:
        if kind == "home":
            for _ in range(min(number, self.ring.flying)):
                self.ring.come_home()
        elif kind == "begin":
            self.submit(prompt(length, number), tokens_max)
        elif self.asked:
            self.go_back_to(kind, number % len(self.asked), length, tokens_max)

    def go_back_to(self, kind: str, older: int, length: int, tokens_max: int) -> None:
        before = self.asked[older][0]
        if kind == "cancel":
            self.cancelled.add(older)
            self.ring.cancel(older)
        elif kind == "branch":
            self.submit(before[: length % len(before)] + prompt(5, 1000 + length), tokens_max)
        else:
            self.submit((*before, *self.ring.answers[older], *prompt(length, 2000 + older)), tokens_max)

    def submit(self, tokens: tuple[int, ...], tokens_max: int) -> None:
        self.asked.append((tokens, tokens_max))
        may_reuse = len(self.asked) % 7 != 0
        self.ring.submit(len(self.asked) - 1, tokens, tokens_max, may_reuse=may_reuse)


@settings(max_examples=400, deadline=None)
@given(capacity=capacities, doings=actions)
def test_every_answer_is_the_one_it_would_be_alone_whatever_it_took_over(capacity, doings):
    history = History(capacity)
    ring = history.ring
    for doing in doings:
        history.do(*doing)
    ring.run_to_the_end()
    for request, (tokens, tokens_max) in enumerate(history.asked):
        alone = answer_alone(tokens, tokens_max, capacity.context)
        if not capacity.holds(len(tokens)):
            assert "do not fit" in ring.failed[request]
        elif request in history.cancelled and request not in ring.ended:
            assert ring.answers[request] == alone[: len(ring.answers[request])]
        else:
            assert ring.answers[request] == alone
            assert ring.ended[request] == ("stop" if alone[-1] == END else "length")
            assert 0 <= ring.cached[request] < len(tokens)
    assert ring.scheduler.busy == ring.scheduler.steps_in_flight == 0
    ring.submit(-1, (1,), 1)  # brings home what had to be dropped at the end
    ring.run_to_the_end()
    assert ring.cells_used == ring.scheduler.cells_used, "both count the same cells"


def asked(ring: FakeRing, request: int, tokens: tuple[int, ...], tokens_max: int = 1, **more: bool) -> int:
    """Rows that were computed for it."""
    before = ring.rows
    ring.submit(request, tokens, tokens_max, **more)
    ring.run_to_the_end()
    return ring.rows - before


@pytest.mark.parametrize("forgets", [False, True])
def test_the_next_turn_of_a_conversation_computes_only_what_is_new(forgets):
    ring = FakeRing(Capacity(context=2000, sequences=4, batch=64, stages=1, forgets=forgets))
    first = lasting(20, 2000) + prompt(500)
    assert asked(ring, 1, first, 9) == len(first) + len(ring.answers[1]) - 1
    second = (*first, *ring.answers[1], *prompt(7, 3))
    assert asked(ring, 2, second) == 8, "seven words, and the last of the answer before them"
    assert ring.cached == {1: 0, 2: len(second) - 8}


def test_a_prompt_that_shares_its_beginning_copies_it_and_leaves_the_other_as_it_was():
    ring = FakeRing(ROOMY)
    system = prompt(300)
    asked(ring, 1, system + prompt(40, 2))
    assert asked(ring, 2, system + prompt(30, 3)) == 30
    assert asked(ring, 3, system + prompt(40, 2) + prompt(5, 4)) == 5
    assert ring.scheduler.cells_used == 300 + 40 + 30 + 5, "what is shared is held once"


def test_the_same_prompt_again_computes_its_last_token_only():
    ring = FakeRing(ROOMY)
    asked(ring, 1, prompt(100), 5)
    assert asked(ring, 2, prompt(100), 1) == 1
    assert ring.cached[2] == 99


def test_whoever_asks_for_no_reuse_computes_everything_and_leaves_nothing():
    ring = FakeRing(ROOMY)
    asked(ring, 1, prompt(100))
    assert asked(ring, 2, prompt(200), may_reuse=False) == 200
    assert ring.cached[2] == 0
    assert ring.scheduler.cells_used == 100
    assert asked(ring, 3, prompt(200)) == 100


def test_of_a_sequence_that_was_forgotten_in_part_only_its_end_is_taken_over():
    ring = FakeRing(Capacity(context=2000, sequences=4, batch=64, stages=1, forgets=True))
    asked(ring, 1, prompt(100))
    assert asked(ring, 2, prompt(50) + prompt(9, 2)) == 59
    assert asked(ring, 3, prompt(100)) == 100, "it cannot go one token back"
    assert asked(ring, 4, prompt(100) + prompt(9, 2)) == 9


def test_the_same_prompt_asked_four_times_at_once_is_computed_once():
    ring = FakeRing(ROOMY)
    long = prompt(600)
    for request in range(4):
        ring.submit(request, long, 3)
    ring.run_to_the_end()
    assert ring.rows <= 600 + 3 + 3 * 3
    assert ring.cached == {0: 0, 1: 599, 2: 599, 3: 599}
    assert all(ring.answers[request] == answer_alone(long, 3, 2000) for request in range(4))


def test_whoever_waits_for_anothers_prompt_goes_on_alone_when_that_is_cancelled():
    ring = FakeRing(Capacity(context=2000, sequences=4, batch=64, stages=0))
    ring.submit(1, prompt(600), 3)
    ring.submit(2, prompt(600), 3)
    ring.come_home()
    ring.cancel(1)
    sent = ring.rows
    ring.run_to_the_end()
    assert ring.answers[2] == answer_alone(prompt(600), 3, 2000)
    assert ring.cached[2] == sent == 128


def test_a_prefix_of_a_prompt_that_runs_is_copied_while_it_runs():
    ring = FakeRing(ROOMY)
    first = lasting(100, 2000)
    ring.submit(1, (*prompt(200), *first), 100)
    for _ in range(20):
        ring.come_home()
    before = ring.rows
    ring.submit(2, (*prompt(200), 4, 5), 1)
    while 2 not in ring.ended:
        ring.come_home()
    assert ring.cached[2] == 200
    assert ring.rows - before < 20


def test_kept_sequences_make_way_for_new_ones_the_oldest_first():
    ring = FakeRing(Capacity(context=300, sequences=4, batch=64, stages=0))
    for request in (1, 2):
        asked(ring, request, prompt(100, request))
    asked(ring, 3, prompt(150, 3))
    assert asked(ring, 4, (*prompt(100, 2), 7)) == 1, "the younger one was spared"
    assert asked(ring, 5, (*prompt(100, 1), 7)) == 101


def test_a_newcomer_that_needs_room_cuts_what_it_takes_over_before_it_waits():
    ring = FakeRing(Capacity(context=300, sequences=4, batch=64, stages=0))
    asked(ring, 1, prompt(100) + prompt(190, 2))
    assert asked(ring, 2, prompt(100) + prompt(190, 3)) == 190


def test_kept_places_are_given_to_newcomers():
    ring = FakeRing(Capacity(context=2000, sequences=2, batch=64, stages=0))
    for request in range(6):
        asked(ring, request, prompt(20, request))
    assert all(command.operation is Operation.DROP for step in ring.steps for command in step.commands)
    assert ring.scheduler.cells_used == 40


def test_what_is_kept_never_keeps_running_answers_from_growing():
    ring = FakeRing(Capacity(context=120, sequences=3, batch=64, stages=1))
    asked(ring, 1, prompt(60, 99_991))
    long = lasting(100, 120)
    assert asked(ring, 2, long, 100) == 104
    assert ring.answers[2] == answer_alone(long, 100, 120)


def test_a_cancelled_prompt_is_gone_on_with_where_it_stopped():
    ring = FakeRing(Capacity(context=2000, sequences=2, batch=64, stages=2))
    ring.submit(1, prompt(1000), 5)
    for _ in range(3):
        ring.come_home()
    ring.cancel(1)
    sent = ring.rows
    assert asked(ring, 2, prompt(1000)) == 1000 - sent


def test_a_lost_ring_leaves_nothing_to_take_over():
    ring = FakeRing(ROOMY)
    asked(ring, 1, prompt(100))
    ring.lose("a stage was killed")
    ring.up()
    assert asked(ring, 2, prompt(100)) == 100


def test_more_than_may_wait_are_refused_at_once_and_the_others_served():
    ring = FakeRing(Capacity(context=100, sequences=1, batch=16, stages=0, waiting_max=2))
    for request in range(5):
        ring.submit(request, prompt(5, request), 2)
    assert set(ring.failed) == {3, 4} and "wait already" in ring.failed[3]
    ring.run_to_the_end()
    assert set(ring.ended) == {0, 1, 2}
