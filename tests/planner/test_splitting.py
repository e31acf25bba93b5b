"""Which nodes run which layers: sentences first, then what must hold for every view."""

from dataclasses import replace
from itertools import combinations, pairwise, permutations
from math import inf

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mesh_llm.core.errors import RequestRefused
from mesh_llm.core.ids import NodeId
from mesh_llm.core.quantities import GIB, MIB
from mesh_llm.core.stages import Cuttable, LayerRange
from mesh_llm.planner.fit import Wish, choices, least
from mesh_llm.planner.split_plan import Measure, Stages, Wait, Whole
from mesh_llm.planner.split_view import SplitView, SplitWish, StageHost, pair
from mesh_llm.planner.splitting import plan
from mesh_llm.planner.stage_fit import predict_stage
from tests.planner.cuttable import cuttable

BIG = cuttable()
"""44 GB, 80 layers."""
NEAR_S, FAR_S = 0.002, 0.081


def node_id(number: int) -> NodeId:
    return NodeId(f"{number:064x}")


def hosts(*rooms: float, speeds: tuple[float, ...] = ()) -> list[StageHost]:
    """With so many GiB; the first is this node."""
    return [
        StageHost(node_id(place), int(room * GIB), speeds[place] if speeds else 0.0, f"n{place}")
        for place, room in enumerate(rooms)
    ]


def view(*rooms: float, speeds: tuple[float, ...] = (), links: dict[tuple[int, int], float] | None = None):
    """All near to each other but where `links` says otherwise."""
    me, *others = hosts(*rooms, speeds=speeds)
    trips = {pair(one.node, other.node): NEAR_S for one, other in combinations((me, *others), 2)}
    for (one, other), seconds in (links or {}).items():
        trips[pair(node_id(one), node_id(other))] = seconds
    return SplitView(me, tuple(others), trips)


def without(view: SplitView, *links: tuple[int, int]) -> SplitView:
    """As if these had not been measured."""
    gone = {pair(node_id(one), node_id(other)) for one, other in links}
    trips = {link: seconds for link, seconds in view.round_trips.items() if link not in gone}
    return SplitView(view.me, view.others, trips)


def stages_of(model: Cuttable, view: SplitView, wish: SplitWish | None = None) -> Stages:
    planned = plan(model, view, wish or SplitWish())
    assert isinstance(planned, Stages), planned
    return planned


def wait_of(model: Cuttable, view: SplitView, wish: SplitWish | None = None) -> Wait:
    planned = plan(model, view, wish or SplitWish())
    assert isinstance(planned, Wait), planned
    return planned


def nodes_of(stages: Stages) -> list[int]:
    return [int(stage.node, 16) for stage in stages.stages]


def counts_of(stages: Stages) -> list[int]:
    return [stage.layers.count for stage in stages.stages]


# -- whole ------------------------------------------------------------------------------------------------


def test_what_fits_here_runs_here_whole() -> None:
    planned = plan(BIG, view(64, 128), SplitWish())
    assert isinstance(planned, Whole) and planned.node == node_id(0)
    assert planned.fit.need.total <= 64 * GIB


def test_what_fits_another_node_only_runs_there_whole_however_far_it_is() -> None:
    planned = plan(BIG, view(16, 24, 64, links={(0, 2): 0.5}), SplitWish())
    assert isinstance(planned, Whole) and planned.node == node_id(2)
    assert "fits n2" in planned.because


def test_of_several_that_hold_it_whole_the_quickest_does() -> None:
    planned = plan(BIG, view(16, 128, 64, speeds=(0, 20e9, 60e9)), SplitWish())
    assert isinstance(planned, Whole) and planned.node == node_id(2)


def test_whole_is_decided_by_the_real_need() -> None:
    need = least(BIG.facts, Wish()).total
    assert isinstance(plan(BIG, view(need / GIB), SplitWish()), Whole)
    assert isinstance(plan(BIG, view((need - 1) / GIB, 8), SplitWish()), Stages)


# -- stages -----------------------------------------------------------------------------------------------


def test_two_nodes_of_a_kind_take_half_each_and_this_one_the_head() -> None:
    planned = stages_of(BIG, view(40, 40))
    assert nodes_of(planned) == [1, 0]
    assert counts_of(planned) in ([40, 40], [41, 39])  # the output head weighs two layers, in decode only
    assert "2 hold it" in planned.because


def test_no_more_nodes_than_needed_are_taken() -> None:
    assert len(stages_of(BIG, view(24, 10, 10, 24, 10)).stages) == 2
    assert len(stages_of(BIG, view(16, 16, 16, 16, 16)).stages) == 3


def test_the_nearest_of_equals_are_taken() -> None:
    assert nodes_of(stages_of(BIG, view(30, 30, 30, links={(0, 1): 0.03}))) == [2, 0]


def test_a_quicker_node_is_worth_a_longer_way_and_gets_more_layers() -> None:
    seen = view(90, 90, 90, speeds=(50e9, 50e9, 200e9), links={(0, 2): 0.03})
    planned = stages_of(BIG, seen, SplitWish(stages=0))
    assert nodes_of(planned) == [2, 0]
    assert planned.stages[0].layers.count > 70


def test_unknown_speeds_count_as_the_usual_one() -> None:
    planned = stages_of(BIG, view(40, 40, 40, speeds=(50e9, 0, 50e9), links={(0, 2): 0.03}))
    assert nodes_of(planned) == [1, 0]
    assert counts_of(planned) in ([40, 40], [41, 39])


def test_stages_are_ordered_for_the_shortest_way_round() -> None:
    far = {(0, 1): 0.01, (1, 2): 0.01, (2, 3): 0.01, (0, 3): 0.01, (0, 2): 0.05, (1, 3): 0.05}
    planned = stages_of(BIG, view(13, 13, 13, 13, links=far))
    assert nodes_of(planned) in ([1, 2, 3, 0], [3, 2, 1, 0])


def test_a_token_takes_reading_all_weights_and_one_way_over_each_link() -> None:
    planned = stages_of(BIG, view(16, 16, 16, speeds=(50e9, 50e9, 50e9)))
    assert planned.seconds_per_token == pytest.approx(BIG.facts.weights_bytes / 50e9 + 3 * NEAR_S / 2)


def test_layers_are_cut_where_the_architecture_allows() -> None:
    planned = stages_of(cuttable(60, 512 * MIB, period=6), view(20, 20))
    assert planned.stages[0].layers.end % 6 == 0


def test_no_stage_gets_a_number_of_layers_that_is_refused() -> None:
    for refused in range(30, 51):
        model = replace(BIG, lengths_refused=(refused, 40))
        assert not {refused, 40} & set(counts_of(stages_of(model, view(40, 40))))


def test_a_forced_split_finds_legal_cuts_where_short_stages_are_refused() -> None:
    model = replace(cuttable(18, 8 * MIB), lengths_refused=(1, 2, 62))
    for stages in range(2, 7):
        planned = stages_of(model, view(*[8] * 9), SplitWish(stages=stages))
        assert len(planned.stages) == stages and min(counts_of(planned)) >= 3
    with pytest.raises(RequestRefused, match="2 to 6 stages"):
        plan(model, view(*[8] * 9), SplitWish(stages=7))
    assert (
        "cannot be run in stages"
        in wait_of(replace(model, lengths_refused=tuple(range(10))), view(1)).because
    )


def test_memory_decides_where_speed_would_give_too_much() -> None:
    planned = stages_of(BIG, view(40, 8, speeds=(10e9, 100e9)))
    assert counts_of(planned)[0] <= 16
    assert all(stage.need.total <= room * GIB for stage, room in zip(planned.stages, (8, 40), strict=True))


def test_a_comfortable_context_is_kept_where_there_is_room_and_given_up_before_the_model_is() -> None:
    assert (stages_of(BIG, view(40, 40)).context, stages_of(BIG, view(40, 40)).kv_type) == (65_536, "f16")
    tight = stages_of(BIG, view(21.5, 21.5))
    assert (tight.context, tight.kv_type) == (8192, "q8_0")


def test_a_context_that_was_asked_for_is_kept_or_refused() -> None:
    assert stages_of(BIG, view(40, 40), SplitWish(context=100_000)).context == 100_000
    wait = wait_of(BIG, view(21.5, 21.5), SplitWish(context=100_000))
    assert "smaller --ctx-size" in wait.because
    with pytest.raises(RequestRefused, match="use --ctx-size 131072 or less"):
        plan(BIG, view(40, 40), SplitWish(context=200_000))


# -- forced -----------------------------------------------------------------------------------------------


def test_a_forced_split_divides_what_would_fit_whole() -> None:
    assert len(stages_of(BIG, view(128, 128, 128), SplitWish(stages=0)).stages) == 2
    planned = stages_of(BIG, view(128, 128, 128, 4), SplitWish(stages=3))
    assert sorted(counts_of(planned)) == [26, 27, 27]


def test_a_forced_split_goes_as_far_as_there_are_cuts() -> None:
    few = cuttable(24, 512 * MIB, period=6)
    assert counts_of(stages_of(few, view(64, 64, 64, 64), SplitWish(stages=4))) == [6, 6, 6, 6]
    with pytest.raises(RequestRefused, match="2 to 4 stages"):
        plan(few, view(64, 64, 64, 64, 64), SplitWish(stages=5))
    with pytest.raises(RequestRefused, match="2 to 4 stages"):
        plan(few, view(64, 64), SplitWish(stages=1))


def test_a_forced_split_waits_for_nodes() -> None:
    wait = wait_of(BIG, view(64, 64, 0.01), SplitWish(stages=3))
    assert "--stages 3 takes as many nodes, this one included: 1 more must join" in wait.because
    assert "Not counted: n2 (10.7 MB: too little for a stage)" in wait.because
    assert isinstance(plan(BIG, view(64, 64, 0.01, wait.missing_bytes / GIB), SplitWish(stages=3)), Stages)


def test_what_cannot_be_cut_waits_for_a_larger_node_and_is_never_forced() -> None:
    whole = cuttable(period=80)
    wait = wait_of(whole, view(16, 16))
    assert "architecture llama cannot be run in stages" in wait.because
    assert isinstance(plan(whole, view(16, 16 + wait.missing_bytes / GIB), SplitWish()), Whole)
    with pytest.raises(RequestRefused, match="choose another model"):
        plan(whole, view(16, 64), SplitWish(stages=0))


# -- round trips ------------------------------------------------------------------------------------------


def test_what_was_not_measured_is_measured_before_anything_is_decided() -> None:
    known = view(24, 24, 24)
    planned = plan(BIG, without(known, (0, 2)), SplitWish())
    assert isinstance(planned, Measure) and planned.pairs == ((node_id(0), node_id(2)),)


def test_a_ring_of_two_needs_no_round_trip_between_others() -> None:
    assert isinstance(plan(BIG, without(view(24, 24, 24), (1, 2)), SplitWish()), Stages)
    planned = plan(BIG, without(view(16, 16, 16), (1, 2)), SplitWish())
    assert isinstance(planned, Measure) and planned.pairs == ((node_id(1), node_id(2)),)


def test_nothing_is_measured_where_no_round_trip_could_help() -> None:
    nothing_known = SplitView(*split_hosts(8, 8, 8), {})
    assert isinstance(plan(BIG, nothing_known, SplitWish()), Wait)


def test_who_has_no_room_for_a_stage_is_not_measured() -> None:
    known = view(24, 24, 0.01)
    assert isinstance(plan(BIG, without(known, (0, 2), (1, 2)), SplitWish()), Stages)


def test_of_many_the_nearest_and_the_roomiest_are_asked_first() -> None:
    rooms = (16, *[15] * 40, *[16] * 10)
    me, others = split_hosts(*rooms)
    known = SplitView(me, others, {pair(me.node, host.node): NEAR_S for host in others})
    planned = plan(BIG, known, SplitWish())
    assert isinstance(planned, Measure) and len(planned.pairs) <= 16 * 15 / 2


def test_a_link_that_is_too_long_takes_no_stage_and_is_named() -> None:
    wait = wait_of(BIG, view(24, 24, links={(0, 1): FAR_S}))
    assert "n1 (81 ms away, 80 ms are the most)" in wait.because
    wait = wait_of(BIG, view(24, 24, links={(0, 1): inf}))
    assert "n1 (cannot be reached from here, 80 ms are the most)" in wait.because


def test_a_ring_goes_round_a_link_that_is_too_long() -> None:
    planned = stages_of(BIG, view(13, 13, 13, 13, links={(1, 2): FAR_S}))
    assert nodes_of(planned) in ([1, 3, 2, 0], [2, 3, 1, 0])


def test_nodes_that_are_far_from_each_other_wait_for_one_between() -> None:
    wait = wait_of(BIG, view(16, 16, 16, links={(1, 2): FAR_S}))
    assert "too far from each other for a ring" in wait.because
    more = view(16, 16, 16, wait.missing_bytes / GIB, links={(1, 2): FAR_S})
    assert isinstance(plan(BIG, more, SplitWish()), Stages)


# -- too little -------------------------------------------------------------------------------------------


def test_too_little_memory_is_said_with_how_much_is_missing_and_what_helps() -> None:
    wait = wait_of(BIG, view(16, 16))
    assert "needs 44.6 GB whole" in wait.because and "2 nodes within reach, with 34.4 GB" in wait.because
    assert "missing: start mesh-llm on one more machine near by" in wait.because
    assert isinstance(plan(BIG, view(16, 16, wait.missing_bytes / GIB), SplitWish()), Stages)
    assert isinstance(plan(BIG, view(16, 16, (wait.missing_bytes - 1) / GIB), SplitWish()), Wait)


def test_a_node_too_small_for_the_head_says_so() -> None:
    wait = wait_of(BIG, view(1, 40, 40))
    assert "output head" in wait.because and "Start the model on a node with more memory" in wait.because
    assert isinstance(plan(BIG, view(1 + wait.missing_bytes / GIB, 40, 40), SplitWish()), Stages)


def split_hosts(*rooms: float) -> tuple[StageHost, tuple[StageHost, ...]]:
    me, *others = hosts(*rooms)
    return me, tuple(others)


# -- for every view ---------------------------------------------------------------------------------------

SMALL = st.builds(
    lambda sizes, period, refused: replace(
        cuttable(sizes=tuple(size * 64 * MIB for size in sizes), period=period, output_bytes=64 * MIB),
        lengths_refused=refused,
    ),
    st.lists(st.integers(1, 10), min_size=3, max_size=9),
    st.sampled_from([1, 1, 1, 2, 3]),
    st.sampled_from([(), (), (2,), (1, 3)]),
)
FREELY_CUT = SMALL.map(lambda model: replace(model, lengths_refused=()))
UNIFORM = st.builds(lambda layers: cuttable(layers, 300 * MIB, output_bytes=64 * MIB), st.integers(2, 8))
SECONDS = st.sampled_from([0.001, 0.005, 0.01, 0.02, 0.03, 0.04, 0.08, 0.081, inf])
WISHES = st.builds(
    SplitWish,
    context=st.sampled_from([None, 512, 8192]),
    slots=st.integers(1, 4),
    stages=st.sampled_from([None, None, 0, 2, 3]),
)


@st.composite
def views(draw: st.DrawFn, others: int = 4, speeds: bool = True) -> SplitView:
    rooms = draw(st.lists(st.integers(3, 16), min_size=1, max_size=others + 1))
    choice = st.sampled_from([0.0, 20e9, 100e9]) if speeds else st.just(0.0)
    speed = tuple(draw(choice) for _ in rooms)
    known = view(*(room / 10 for room in rooms), speeds=speed)
    trips = {link: draw(SECONDS) for link in known.round_trips}
    return SplitView(known.me, known.others, trips)


def planned_or_refused(model: Cuttable, seen: SplitView, wish: SplitWish):
    try:
        return plan(model, seen, wish)
    except RequestRefused:
        return None


@given(SMALL, views(), WISHES)
def test_no_stage_is_over_its_memory_and_all_layers_are_held_once(model, seen, wish) -> None:
    planned = planned_or_refused(model, seen, wish)
    if not isinstance(planned, Stages):
        return
    rooms = {host.node: host.memory_bytes for host in (seen.me, *seen.others)}
    ranges = [stage.layers for stage in planned.stages]
    assert [stage.node for stage in planned.stages].index(seen.me.node) == len(ranges) - 1
    assert len({stage.node for stage in planned.stages}) == len(ranges) >= 2
    assert ranges[0].first == 0 and ranges[-1].end == model.facts.layers
    assert all(one.end == other.first and one.end in model.cuts for one, other in pairwise(ranges))
    assert not {layers.count for layers in ranges} & set(model.lengths_refused)
    for stage in planned.stages:
        assert stage.need == need_of(model, stage.layers, planned, is_head=stage.node == seen.me.node)
        assert stage.need.total <= rooms[stage.node]
    ring = [stage.node for stage in planned.stages]
    assert all(seen.round_trips[pair(*link)] <= 0.08 for link in pairwise([*ring, ring[0]]))
    assert wish.stages in (None, 0, len(ring)) and wish.context in (None, planned.context)


@given(SMALL, views(), WISHES, st.randoms())
def test_the_order_of_candidates_means_nothing(model, seen, wish, chance) -> None:
    shuffled = list(seen.others)
    chance.shuffle(shuffled)
    trips = list(seen.round_trips.items())
    chance.shuffle(trips)
    again = SplitView(seen.me, tuple(shuffled), dict(trips))
    assert planned_or_refused(model, seen, wish) == planned_or_refused(model, again, wish)


@given(SMALL, views(), WISHES, st.lists(st.integers(0, 2 * GIB), min_size=5, max_size=5))
def test_more_memory_never_turns_a_plan_into_waiting(model, seen, wish, more) -> None:
    planned = planned_or_refused(model, seen, wish)
    rich = [
        StageHost(host.node, host.memory_bytes + gift, host.speed, host.name)
        for host, gift in zip((seen.me, *seen.others), more, strict=False)
    ]
    richer = planned_or_refused(model, SplitView(rich[0], tuple(rich[1:]), seen.round_trips), wish)
    if isinstance(planned, Whole | Stages):
        assert isinstance(richer, Whole | Stages)
    if isinstance(planned, Stages) and isinstance(richer, Stages):
        assert len(richer.stages) <= len(planned.stages)


@given(FREELY_CUT, views(), WISHES)
def test_what_is_said_to_be_missing_is_enough_on_one_more_node_near_by(model, seen, wish) -> None:
    planned = planned_or_refused(model, seen, wish)
    if not isinstance(planned, Wait) or "output head" in planned.because or not model.cuts:
        return
    new = StageHost(node_id(99), planned.missing_bytes)
    trips = {pair(new.node, host.node): NEAR_S for host in (seen.me, *seen.others)}
    helped = SplitView(seen.me, (*seen.others, new), {**seen.round_trips, **trips})
    richer = plan(model, helped, wish)
    assert isinstance(richer, Whole | Stages) or (isinstance(richer, Wait) and wish.stages not in (None, 0))


@settings(max_examples=60)
@given(SMALL, views(others=3), st.sampled_from([0, 2, 3]))
def test_no_fewer_nodes_would_do(model, seen, stages) -> None:
    wish = SplitWish(context=4096, stages=stages)
    planned = planned_or_refused(model, seen, wish)
    if planned is None:
        return
    costs = Stages((), 4096, "q4_0", wish.slots, wish.batch, 0.0, "")
    counts = {len(ring) + 1 for ring in rings_of(seen) if whether_held(model, seen, ring, costs)}
    allowed = counts if stages == 0 else counts & {stages}
    assert (len(planned.stages) if isinstance(planned, Stages) else None) == min(allowed, default=None)


@settings(max_examples=60)
@given(UNIFORM, views(others=3, speeds=False))
def test_of_all_rings_with_as_few_nodes_none_is_quicker_or_holds_a_better_type(model, seen) -> None:
    wish = SplitWish(context=4096, stages=0)
    planned = planned_or_refused(model, seen, wish)
    if not isinstance(planned, Stages):
        return
    for kv_type, _ in choices(model.facts, Wish(4096)):
        costs = Stages((), 4096, kv_type, wish.slots, wish.batch, 0.0, "")
        rings = [
            ring
            for ring in rings_of(seen)
            if len(ring) + 1 == len(planned.stages) and whether_held(model, seen, ring, costs)
        ]
        if rings:
            break
    assert planned.kv_type == kv_type
    ring = [stage.node for stage in planned.stages[:-1]]
    names = {host.node: host for host in seen.others}
    chosen = round_of(seen, tuple(names[node] for node in ring))
    assert chosen == pytest.approx(min(round_of(seen, ring) for ring in rings))


def rings_of(seen: SplitView) -> list[tuple[StageHost, ...]]:
    """Every order of every set of remote nodes whose links may be used."""
    rings = [ring for count in range(1, len(seen.others) + 1) for ring in permutations(seen.others, count)]
    return [ring for ring in rings if all(trip <= 0.08 for trip in trips_of(seen, ring))]


def trips_of(seen: SplitView, ring: tuple[StageHost, ...]) -> list[float]:
    nodes = [seen.me.node, *(host.node for host in ring), seen.me.node]
    return [seen.round_trips[pair(*link)] for link in pairwise(nodes)]


def round_of(seen: SplitView, ring: tuple[StageHost, ...]) -> float:
    return sum(trips_of(seen, ring)) / 2


def whether_held(model: Cuttable, seen: SplitView, ring: tuple[StageHost, ...], costs: Stages) -> bool:
    """By trying every way of cutting."""
    nodes = (*ring, seen.me)
    for cuts in combinations(model.cuts, len(nodes) - 1):
        ranges = [LayerRange(*ends) for ends in pairwise((0, *cuts, model.facts.layers))]
        if {layers.count for layers in ranges} & set(model.lengths_refused):
            continue
        needs = [need_of(model, layers, costs, is_head=layers is ranges[-1]).total for layers in ranges]
        if all(need <= node.memory_bytes for need, node in zip(needs, nodes, strict=True)):
            return True
    return False


def need_of(model: Cuttable, layers: LayerRange, costs: Stages, *, is_head: bool):
    return predict_stage(
        model,
        layers,
        is_head=is_head,
        context=costs.context,
        kv_type=costs.kv_type,
        sequences=costs.sequences,
        batch=costs.batch,
    )
