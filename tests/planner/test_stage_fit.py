"""What a child of a split model needs, as numbers; held against real children in the test beside this one."""

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from mesh_llm.core.quantities import MIB
from mesh_llm.core.stages import Cuttable, LayerRange
from mesh_llm.planner.memory import MemoryNeed
from mesh_llm.planner.stage_fit import (
    HEAD_PROCESS_BYTES,
    MERGE_BYTES,
    STAGE_PROCESS_BYTES,
    TOKEN_BYTES,
    predict_stage,
    stage_costs,
)
from tests.planner.cuttable import cuttable

MODEL = replace(cuttable(12), merges=0)
SLIDING = replace(
    MODEL,
    facts=replace(MODEL.facts, sliding_window=1024, sliding_layers=(True, True, False) * 4),
)


def need(model: Cuttable, first: int, end: int, *, is_head: bool = False, context: int = 8192) -> MemoryNeed:
    return predict_stage(
        model,
        LayerRange(first, end),
        is_head=is_head,
        context=context,
        kv_type="f16",
        sequences=4,
        batch=256,
    )


def test_a_remote_stage_holds_its_own_layers_and_their_cache_only() -> None:
    stage = need(MODEL, 2, 5)
    assert stage.weights == 3 * 512 * MIB
    assert stage.kv_cache == 3 * 8192 * 2 * 8 * 128 * 2
    assert stage.process == STAGE_PROCESS_BYTES and stage.checkpoints == stage.prompt_cache == 0


def test_the_head_holds_output_vocabulary_and_logits_besides() -> None:
    head, stage = need(MODEL, 9, 12, is_head=True), need(MODEL, 2, 5)
    assert head.weights - stage.weights == MODEL.output_bytes
    assert head.compute - stage.compute == 2 * 4 * 128_256 * 4
    assert head.process == HEAD_PROCESS_BYTES + TOKEN_BYTES * 128_256
    untied = need(replace(MODEL, embedding_bytes=MIB), 9, 12, is_head=True)
    assert untied.weights - head.weights == MIB


def test_a_tokenizers_merges_count_where_they_are_known_and_as_many_as_tokens_where_not() -> None:
    known, unknown = replace(MODEL, merges=1000), replace(MODEL, merges=None)
    least = need(MODEL, 9, 12, is_head=True).process
    assert need(known, 9, 12, is_head=True).process - least == 1000 * MERGE_BYTES
    assert need(unknown, 9, 12, is_head=True).process - least == 128_256 * MERGE_BYTES


def test_only_layers_that_slide_are_spared_the_whole_context() -> None:
    row = 2 * 8 * 128 * 2
    assert need(SLIDING, 0, 3).kv_cache == row * (8192 + 2 * (4 * 1024 + 256))


def test_recurrent_layers_keep_a_state_for_each_sequence() -> None:
    facts = replace(MODEL.facts, kv_heads=(0, 0, 8) * 4, recurrent_bytes=80 * MIB)
    assert need(replace(MODEL, facts=facts), 0, 2).kv_cache == 2 * 10 * MIB * 4


@given(st.sampled_from([MODEL, SLIDING]), st.data(), st.booleans())
def test_sums_for_planning_are_the_prediction_for_every_range(model: Cuttable, data, is_head: bool) -> None:
    costs = stage_costs(model, context=8192, kv_type="f16", sequences=4, batch=256)
    start = data.draw(st.integers(0, 11))
    end = 12 if is_head else data.draw(st.integers(start + 1, 12))
    added = costs.head_need(start) if is_head else costs.remote_need(start, end)
    assert added == need(model, start, end, is_head=is_head).total


@given(st.data(), st.integers(0, 8 << 30))
def test_a_reach_is_the_farthest_range_that_fits(data, room: int) -> None:
    costs = stage_costs(SLIDING, context=8192, kv_type="f16", sequences=4, batch=256)
    start = data.draw(st.integers(0, 10))
    fitting = [end for end in range(start + 1, 12) if costs.remote_need(start, end) <= room]
    assert costs.reach(start, room, 11) == max(fitting, default=start)
    heads = [at for at in range(12) if costs.head_need(at) <= room]
    assert costs.head_border(room) == min(heads, default=12) or not heads
