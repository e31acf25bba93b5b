import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mesh_llm.engine.head.scheduler import Scheduler
from mesh_llm.engine.head.steps import Cancel, Capacity, Failed, Home, RingUp, Send, Submit
from tests.engine.head.fake_ring import END, FakeRing, answer_alone

ROOMY = Capacity(context=1000, sequences=8, batch=16, stages=1)


def prompt(length: int, seed: int = 1) -> tuple[int, ...]:
    return tuple((seed * 7919 + position * 31) % 50_021 for position in range(length))


def lasting(tokens: int, context: int = 1000) -> tuple[int, ...]:
    """A prompt whose answer does not end by itself before so many tokens."""
    return next(p for p in (prompt(5, seed) for seed in range(10_000)) if _lasts(p, tokens, context))


def _lasts(candidate: tuple[int, ...], tokens: int, context: int) -> bool:
    return len(answer_alone(candidate, tokens, context)) == tokens and END not in answer_alone(
        candidate, tokens, context
    )


actions = st.lists(
    st.one_of(
        st.tuples(st.just("submit"), st.integers(1, 40), st.integers(1, 30)),
        st.tuples(st.just("cancel"), st.integers(0, 30), st.just(0)),
        st.tuples(st.just("home"), st.integers(1, 6), st.just(0)),
    ),
    max_size=60,
)
capacities = st.builds(
    Capacity,
    context=st.integers(2, 90),
    sequences=st.integers(1, 6),
    batch=st.integers(2, 24),
    stages=st.integers(0, 3),
)


@settings(max_examples=400, deadline=None)
@given(capacity=capacities, doings=actions)
def test_every_answer_is_the_one_it_would_be_alone_whatever_happens_around_it(capacity, doings):
    ring = FakeRing(capacity)
    prompts: dict[int, tuple[tuple[int, ...], int]] = {}
    cancelled: set[int] = set()
    for kind, number, tokens_max in doings:
        if kind == "submit":
            request = len(prompts)
            prompts[request] = (prompt(number, request), tokens_max)
            ring.submit(request, *prompts[request])
        elif kind == "cancel":
            cancelled.add(number % max(1, len(prompts)))
            ring.cancel(number % max(1, len(prompts)))
        else:
            for _ in range(min(number, ring.flying)):
                ring.come_home()
    ring.run_to_the_end()
    for request, (tokens, tokens_max) in prompts.items():
        alone = answer_alone(tokens, tokens_max, capacity.context)
        if not capacity.holds(len(tokens)):
            assert "do not fit" in ring.failed[request]
        elif request in cancelled and request not in ring.ended:
            assert ring.answers[request] == alone[: len(ring.answers[request])]
        else:
            assert ring.answers[request] == alone
            assert ring.ended[request] == ("stop" if alone[-1] == END else "length")
    assert ring.scheduler.busy == ring.scheduler.steps_in_flight == 0


@settings(max_examples=150, deadline=None)
@given(capacity=capacities, before=actions, homes=st.integers(0, 10))
def test_a_lost_ring_fails_all_that_is_under_way_and_the_next_one_begins_clean(capacity, before, homes):
    ring = FakeRing(capacity)
    submitted = 0
    for kind, number, tokens_max in before:
        if kind == "submit" and number < capacity.context:
            ring.submit(submitted, prompt(number, submitted), tokens_max)
            submitted += 1
    for _ in range(min(homes, ring.flying)):
        ring.come_home()
    open_requests = set(range(submitted)) - set(ring.ended)
    ring.lose("a stage was killed")
    assert {request: ring.failed[request] for request in open_requests} == dict.fromkeys(
        open_requests, "a stage was killed"
    )
    assert ring.scheduler.busy == 0
    ring.submit(1000, (1,), 3)
    assert ring.failed[1000] == "a stage was killed"
    ring.up()
    ring.submit(1001, (1,), 3)
    ring.run_to_the_end()
    assert ring.answers[1001] == answer_alone((1,), 3, capacity.context)


def test_nothing_is_taken_before_the_ring_has_been_up():
    assert Scheduler(ROOMY).handle(Submit(1, (1, 2), 5)) == [Failed(1, "the ring has not been up yet")]


def test_a_prompt_goes_out_in_chunks_that_follow_each_other():
    ring = FakeRing(ROOMY)
    ring.submit(1, prompt(40), 1)
    assert [len(step.rows) for step in ring.steps] == [16, 16, 8]
    assert [row.sampled for row in ring.steps[-1].rows] == [False] * 7 + [True]


def test_streams_are_spread_over_as_many_steps_as_there_are_places():
    ring = FakeRing(ROOMY)
    for request in range(8):
        ring.submit(request, lasting(60), 60)
    for _ in range(60):
        ring.come_home()
    assert [len(step.rows) for step in ring.steps[-10:]] == [4] * 10
    assert ring.flying == 2


def test_a_decoding_stream_goes_on_beside_a_long_prompt():
    ring = FakeRing(Capacity(context=2000, sequences=4, batch=16, stages=2))
    ring.submit(1, lasting(50), 50)
    ring.come_home()
    before = len(ring.answers[1])
    ring.submit(2, prompt(900), 1)
    for _ in range(40):
        ring.come_home()
    assert len(ring.answers[1]) - before >= 40 // 4
    assert sum(len(step.rows) for step in ring.steps) > 40 * 12, "the prompt fills what decoding leaves"


def test_many_decoding_streams_leave_room_for_a_prompt():
    ring = FakeRing(Capacity(context=4000, sequences=40, batch=8, stages=0))
    for request in range(30):
        ring.submit(request, lasting(200), 200)
    for _ in range(100):
        ring.come_home()
    ring.submit(50, prompt(30), 1)
    for _ in range(16):
        ring.come_home()
    assert ring.ended[50] == "length"


def test_a_short_prompt_overtakes_a_long_one_that_still_moves_on():
    ring = FakeRing(Capacity(context=4000, sequences=4, batch=16, stages=0))
    ring.submit(1, prompt(1000), 1)
    ring.submit(2, prompt(20), 1)
    for _ in range(5):
        ring.come_home()
    assert ring.ended[2] == "length"
    assert 1 not in ring.ended
    assert all(any(row.sequence == 0 for row in step.rows) for step in ring.steps)


def test_when_cells_run_out_the_youngest_goes_back_and_loses_nothing():
    capacity = Capacity(context=60, sequences=3, batch=16, stages=1)
    ring = FakeRing(capacity)
    long = lasting(50, 60)
    for request in range(2):
        ring.submit(request, long, 50, may_reuse=False)
    ring.run_to_the_end()
    assert ring.answers[0] == ring.answers[1] == answer_alone(long, 50, 60)
    assert list(ring.ended) == [0, 1], "the older is served first"
    assert any(step.commands for step in ring.steps[:-1]), "somebody was driven out"


def test_a_cancelled_sequence_makes_way_with_the_next_step_and_its_place_is_used_again():
    ring = FakeRing(Capacity(context=100, sequences=1, batch=16, stages=1))
    ring.submit(1, lasting(50), 50)
    ring.submit(2, prompt(5, 77), 1)
    assert len(ring.steps) == 1
    ring.cancel(1)
    assert [(command.operation.name, command.sequence) for command in ring.steps[1].commands] == [("DROP", 0)]
    assert {row.sequence for row in ring.steps[1].rows} == {0}
    ring.come_home()
    assert ring.answers[1] == []
    ring.come_home()
    assert ring.ended == {2: "length"}


def test_what_is_in_flight_for_somebody_driven_out_is_ignored_when_he_is_back_already():
    ring = FakeRing(Capacity(context=61, sequences=2, batch=64, stages=3))
    long = lasting(50, 60)
    ring.submit(0, long, 50, may_reuse=False)
    ring.come_home()
    ring.submit(1, long, 50, may_reuse=False)
    while not ring.steps[-1].commands:
        ring.come_home()
    ring.cancel(0)
    assert ring.flying == 3, "a row of the one who left, an old one and a new one of the other"
    ring.run_to_the_end()
    assert ring.answers[1] == answer_alone(long, 50, 61)


def test_a_row_of_somebody_cancelled_is_not_sampled():
    scheduler = Scheduler(ROOMY)
    scheduler.handle(RingUp())
    (step,) = scheduler.handle(Submit(1, (4, 5), 9))
    assert isinstance(step, Send) and scheduler.wanted() == ((1, 1),)
    scheduler.handle(Submit(2, (6,), 9))
    scheduler.handle(Cancel(1))
    assert scheduler.wanted() == ()
    scheduler.handle(Home({}))


@pytest.mark.parametrize("changes", [{"context": 1}, {"batch": 1}, {"sequences": 0}, {"stages": -1}])
def test_a_capacity_without_room_is_no_capacity(changes):
    with pytest.raises(ValueError, match="leaves no room"):
        Capacity(**{"context": 100, "sequences": 2, "batch": 8, "stages": 1} | changes)
