"""How many experts fit, and whether a cut or stages serve a mixture."""

from itertools import combinations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesh_llm.core.errors import RequestRefused
from mesh_llm.core.experts import ExpertLayout, Quality
from mesh_llm.core.ids import NodeId
from mesh_llm.core.quantities import GIB
from mesh_llm.core.stages import LayerRange
from mesh_llm.planner.expert_plan import (
    Choice,
    ExpertCut,
    ExpertWish,
    Mixture,
    NoCut,
    assign,
    choose,
    expert_cut,
    refuse_split,
    split_seconds,
    tokens_per_second,
)
from mesh_llm.planner.fit import CONTEXT_COMFORTABLE, CONTEXT_MIN, LOSSY_KV, Wish, least, predict
from mesh_llm.planner.memory import MemoryNeed
from mesh_llm.planner.split_plan import Measure, Plan, PlannedStage, Stages, Wait
from mesh_llm.planner.split_view import SplitView, StageHost
from tests.planner.cuttable import cuttable
from tests.planner.mixtures import mixture, ranking

BIG = mixture()
FLAT = mixture(layers=2)
"""Lists of 48 layers take their time."""
GROUPED = mixture(64, 8, groups=8, groups_used=4)
WISH = Wish()
LAYOUTS: tuple[ExpertLayout, ...] = ("best", "shared")
ME, OTHER = NodeId("0" * 64), NodeId("1" * 64)
VIEW = SplitView(StageHost(ME, 12 * GIB, 20e9), (StageHost(OTHER, 12 * GIB, 20e9),), {(ME, OTHER): 0.002})
GOOD = Quality(11.0, 10.0, 0.05, 0.9, 1024)
POOR = Quality(15.0, 10.0, 0.5, 0.6, 1024)
NO_STAGES = Wait(GIB, "The nodes are too far from each other.")


def stages(seconds: float = 1.0) -> Stages:
    need = MemoryNeed(BIG.facts.weights_bytes // 2, 0, 0, 0, 0, 0)
    halves = (PlannedStage(OTHER, LayerRange(0, 24), need), PlannedStage(ME, LayerRange(24, 48), need))
    return Stages(halves, 16_384, "f16", 4, 256, seconds, "No node holds the whole model.")


def cut_in(room: float) -> ExpertCut:
    cut = expert_cut(BIG, int(room * GIB), WISH)
    assert isinstance(cut, ExpertCut), cut
    return cut


def chosen(
    layers: Plan, quality: Quality | None = None, wish: ExpertWish | None = None, room: float = 12
) -> Choice:
    cut = expert_cut(BIG, int(room * GIB), WISH)
    return choose(BIG, VIEW, layers, cut, quality, wish or ExpertWish())


# -- how many ---------------------------------------------------------------------------------------------


def test_a_node_that_could_hold_the_model_whole_would_keep_all_its_experts():
    assert cut_in(32).count == 128


def test_a_node_keeps_experts_before_a_longer_context_but_never_spoils_answers_for_more_than_half():
    cut = cut_in(12)
    assert 64 < cut.count < 128
    assert CONTEXT_MIN <= cut.fit.context < CONTEXT_COMFORTABLE and cut.fit.kv_type not in LOSSY_KV
    more = BIG.cut_facts(cut.count + 1)
    assert predict(more, CONTEXT_MIN, "q8_0", WISH.slots, embeddings=False).total > 12 * GIB


def test_a_longer_context_is_kept_before_experts_where_somebody_asks_for_it():
    longer = expert_cut(BIG, 12 * GIB, Wish(32_768))
    assert isinstance(longer, ExpertCut) and longer.fit.context == 32_768
    assert 64 < longer.count < cut_in(12).count


def test_a_node_too_small_for_half_of_the_experts_keeps_them_even_before_exact_keys_and_values():
    cuts = [expert_cut(BIG, room * GIB // 8, WISH) for room in range(24, 100, 2)]
    small = [cut for cut in cuts if isinstance(cut, ExpertCut) and cut.count <= 64]
    assert any(cut.fit.kv_type in LOSSY_KV for cut in small)
    large = [cut for cut in cuts if isinstance(cut, ExpertCut) and cut.count > 64]
    assert large and not any(cut.fit.kv_type in LOSSY_KV for cut in large)


def test_a_node_too_small_for_any_cut_is_told_what_is_missing_and_what_helps():
    cut = expert_cut(BIG, GIB, WISH)
    assert isinstance(cut, NoCut)
    assert "8 of 128" in cut.because and "Free memory" in cut.because
    enough = expert_cut(BIG, GIB + cut.missing_bytes, WISH)
    assert isinstance(enough, ExpertCut) and enough.count == 8


def test_a_cut_reads_as_much_for_a_token_as_the_whole_model():
    assert tokens_per_second(BIG, 20e9) == pytest.approx(20e9 / (2 * GIB))
    """1 GiB of trunk and 8 experts of 128 MiB at 20 GB/s."""


@given(st.sampled_from((BIG, GROUPED)), st.integers(0, 40 * GIB), st.sampled_from((None, 4096, 32_768)))
def test_no_cut_is_over_its_room_and_none_could_do_without_what_it_says_is_missing(
    model: Mixture, room: int, context: int | None
):
    wish = Wish(context)
    cut = expert_cut(model, room, wish)
    if isinstance(cut, ExpertCut):
        assert cut.fit.need.total <= room
        assert model.shape.allows(cut.count) and cut.count >= model.shape.fewest
        assert cut.fit.need.weights == model.trunk_bytes + cut.count * model.expert_bytes
    else:
        fewest = model.cut_facts(model.shape.fewest)
        assert least(fewest, wish).total == room + cut.missing_bytes > room


@given(st.sampled_from((BIG, GROUPED)), st.integers(0, 40 * GIB), st.integers(0, 4 * GIB))
def test_more_room_never_means_fewer_experts(model: Mixture, room: int, more: int):
    one, other = (expert_cut(model, size, WISH) for size in (room, room + more))
    if isinstance(one, ExpertCut):
        assert isinstance(other, ExpertCut) and other.count >= one.count


@given(
    st.dictionaries(st.integers(0, 99), st.integers(0, 24 * GIB), max_size=5),
    st.sampled_from(LAYOUTS),
)
def test_every_node_that_can_hold_a_cut_is_given_the_largest_whatever_the_layout(
    drawn: dict[int, int], layout: ExpertLayout
):
    rooms = {NodeId(f"{number:064x}"): room for number, room in drawn.items()}
    lists = assign(FLAT, ranking(FLAT.shape), rooms, layout, WISH)
    cuts = {node: expert_cut(FLAT, room, WISH) for node, room in rooms.items()}
    expected = {node: cut.count for node, cut in cuts.items() if isinstance(cut, ExpertCut)}
    assert {node: kept.count for node, kept in lists.items()} == expected


def test_a_context_beyond_the_model_s_is_refused():
    with pytest.raises(RequestRefused, match="ctx-size"):
        expert_cut(BIG, 12 * GIB, Wish(1_000_000))


# -- cut or stages ----------------------------------------------------------------------------------------


def test_stages_are_exact_so_they_go_first_and_people_hear_what_a_cut_would_be():
    choice = chosen(stages(), GOOD)
    assert choice.way == "layers"
    assert "exactly" in choice.because and "--split experts" in choice.because and "1.10 x" in choice.because
    assert choice.cut_tokens_per_second == pytest.approx(20e9 / (2 * GIB))


def test_a_cut_is_served_where_somebody_asks_for_it_however_good_it_is():
    for quality in (None, GOOD, POOR):
        choice = chosen(stages(), quality, ExpertWish("experts"))
        assert choice.way == "experts" and "approximate" in choice.because


def test_without_stages_a_cut_is_served_if_it_is_good_enough():
    assert chosen(NO_STAGES, GOOD).way == "experts"
    poor = chosen(NO_STAGES, POOR)
    assert poor.way == "wait" and "1.50 x" in poor.because and "--split experts" in poor.because
    assert "1.15 x" in poor.because and "--moe-quality" in poor.because
    assert chosen(NO_STAGES, POOR, ExpertWish(quality_ratio_max=1.5)).way == "experts"


def test_a_cut_that_nobody_has_measured_is_judged_first():
    choice = chosen(NO_STAGES)
    assert choice.way == "judge" and "nobody has measured" in choice.because


def test_where_a_cut_can_be_judged_by_nobody_people_hear_what_helps():
    cut = expert_cut(BIG, 12 * GIB, WISH)
    choice = choose(BIG, VIEW, NO_STAGES, cut, None, ExpertWish(), can_judge=False)
    assert choice.way == "wait" and "1.15 x" in choice.because
    assert "mesh-llm download" in choice.because and "--split experts" in choice.because


def test_links_are_measured_before_anything_is_served_approximately():
    assert chosen(Measure(((ME, OTHER),), "Not known yet."), GOOD).way == "measure"


def test_whoever_asks_for_layers_is_never_given_a_cut():
    assert chosen(NO_STAGES, GOOD, ExpertWish("layers")).way == "wait"


def test_a_node_too_small_for_a_cut_waits_and_says_both_reasons():
    choice = chosen(NO_STAGES, room=1)
    assert choice.way == "wait" and "too far" in choice.because and "fewest experts" in choice.because
    assert chosen(stages(), None, ExpertWish("experts"), room=1).way == "wait"


def test_stages_of_a_mixture_are_predicted_to_read_its_used_experts_only():
    whole = BIG.facts.weights_bytes / 20e9
    links = 0.004
    assert split_seconds(BIG, VIEW, stages(whole + links)) == pytest.approx(BIG.read_bytes / 20e9 + links)


def test_splits_that_a_model_cannot_have_are_refused_with_the_cure():
    dense, uncuttable = cuttable(), cuttable(4, period=9)
    with pytest.raises(RequestRefused, match=r"no mixture of experts.*--split layers"):
        refuse_split("experts", dense, None, "")
    with pytest.raises(RequestRefused, match=r"by the token.*Leave out"):
        refuse_split("experts", None, None, "Experts are looked up by the token.")
    with pytest.raises(RequestRefused, match=r"in stages.*--split experts"):
        refuse_split("layers", uncuttable, BIG, "")
    with pytest.raises(RequestRefused, match=r"in stages.*Leave it out"):
        refuse_split("layers", None, None, "")


def test_splits_that_a_model_can_have_are_let_through():
    refuse_split("experts", None, BIG, "")
    refuse_split("layers", cuttable(), None, "")
    refuse_split(None, None, None, "")


def test_unequal_nodes_keep_unequal_cuts():
    rooms = {NodeId(f"{place:064x}"): room * GIB for place, room in enumerate((16, 12, 8))}
    lists = assign(BIG, ranking(BIG.shape), rooms, "best", WISH)
    counts = [lists[node].count for node in rooms]
    assert counts == sorted(counts, reverse=True) and len(set(counts)) == 3
    for smaller, larger in combinations(reversed(list(rooms)), 2):
        for layer in BIG.shape.layers:
            assert set(lists[smaller].by_layer[layer]) <= set(lists[larger].by_layer[layer])
