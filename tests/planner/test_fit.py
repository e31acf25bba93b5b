"""How much memory a model needs and what is chosen from what is left; no engine."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesh_llm.core.errors import DoesNotFit, RequestRefused
from mesh_llm.core.model import ModelFacts
from mesh_llm.core.quantities import GIB, MIB
from mesh_llm.planner.fit import BATCH, KV_TYPES, Wish, batch_for, fit, kv_types_for, least, predict

LAYERS = 32
LLAMA = ModelFacts(
    architecture="llama",
    parameters=8_000_000_000,
    quantisation="Q4_K_M",
    context_length=131_072,
    embedding_length=4096,
    vocabulary=128_256,
    weights_bytes=4_900_000_000,
    kv_heads=(8,) * LAYERS,
    key_length=128,
    value_length=128,
    sliding_window=0,
    sliding_layers=(False,) * LAYERS,
    recurrent_bytes=0,
    experts=0,
    experts_used=0,
    chat_template=None,
    pooling=None,
    heads=32,
    feed_forward_length=14_336,
)
SLIDING = replace(LLAMA, sliding_window=1024, sliding_layers=(True, False) * (LAYERS // 2))
HYBRID = replace(LLAMA, kv_heads=(0, 0, 0, 8) * (LAYERS // 4), recurrent_bytes=75 * MIB)
ENCODER = replace(
    LLAMA, kv_heads=(0,) * LAYERS, pooling="cls", context_length=8192, weights_bytes=500_000_000
)


def test_the_kv_cache_is_two_rows_for_each_layer_and_token() -> None:
    assert predict(LLAMA, 8192, "f16", 4).kv_cache == 8192 * LAYERS * 2 * 8 * 128 * 2
    assert predict(LLAMA, 8192, "q8_0", 4).kv_cache == 8192 * LAYERS * 2 * 8 * 128 * 34 // 32
    assert predict(LLAMA, 8192, "q4_0", 4).kv_cache == 8192 * LAYERS * 2 * 8 * 128 * 18 // 32


def test_the_kv_cache_does_not_grow_with_the_slots_which_share_it() -> None:
    assert predict(LLAMA, 8192, "f16", 1).kv_cache == predict(LLAMA, 8192, "f16", 16).kv_cache


def test_sliding_layers_hold_a_window_for_each_slot_and_one_batch() -> None:
    row = 2 * 8 * 128 * 2 * LAYERS // 2
    assert predict(SLIDING, 65_536, "f16", 4).kv_cache == row * (65_536 + 4 * 1024 + BATCH)
    assert predict(SLIDING, 2048, "f16", 4).kv_cache == row * (2048 + 2048)


def test_a_latent_cache_has_no_values() -> None:
    latent = replace(LLAMA, kv_heads=(1,) * LAYERS, key_length=576, value_length=0)
    assert predict(latent, 4096, "f16", 4).kv_cache == 4096 * LAYERS * 576 * 2


def test_sparse_attention_caches_its_index_too() -> None:
    indexed = replace(LLAMA, indexer_length=128)
    more = predict(indexed, 4096, "f16", 4).kv_cache - predict(LLAMA, 4096, "f16", 4).kv_cache
    assert more == 4096 * LAYERS * 128 * 2


def test_recurrent_states_grow_with_the_slots_and_not_with_the_context() -> None:
    one, four = (predict(HYBRID, 4096, "f16", slots).kv_cache for slots in (1, 4))
    assert four - one == 3 * 75 * MIB


def test_what_cannot_be_rolled_back_is_saved_in_checkpoints() -> None:
    assert predict(LLAMA, 8192, "f16", 4).checkpoints == 0
    assert predict(HYBRID, 8192, "f16", 4).checkpoints == 4 * 4 * 75 * MIB
    assert predict(SLIDING, 8192, "f16", 4).checkpoints > 0


def test_a_large_vocabulary_costs_logits_and_an_engine_that_embeds_keeps_a_batch_of_them() -> None:
    with_embeddings = predict(LLAMA, 4096, "f16", 4).compute
    without = predict(LLAMA, 4096, "f16", 4, embeddings=False).compute
    assert with_embeddings - without == (BATCH - 4) * 4 * (2 * 128_256 + 4096)


def test_without_flash_attention_scores_of_every_head_are_held() -> None:
    grok = replace(LLAMA, architecture="grok")
    assert predict(grok, 8192, "f16", 4).compute > predict(LLAMA, 8192, "f16", 4).compute + 250 * MIB


def test_quantised_caches_need_flash_attention_and_heads_of_whole_blocks() -> None:
    assert kv_types_for(LLAMA) == ("f16", "q8_0", "q4_0")
    assert kv_types_for(replace(LLAMA, architecture="grok")) == ("f16",)
    assert kv_types_for(replace(LLAMA, key_length=80)) == ("f16",)
    assert kv_types_for(replace(LLAMA, value_length_sliding=80)) == ("f16",)
    assert kv_types_for(ENCODER) == ("f16",)


def test_with_plenty_the_best_type_and_the_longest_usual_context_are_taken() -> None:
    plan = fit(LLAMA, 64 * GIB, Wish())
    assert (plan.kv_type, plan.context, plan.batch, plan.slots) == ("f16", 65_536, BATCH, 4)
    assert plan.prompt_cache_bytes == 512 * MIB and plan.checkpoints == 0


def test_the_context_is_never_longer_than_the_model_was_trained_for() -> None:
    assert fit(replace(LLAMA, context_length=2000), 64 * GIB, Wish()).context == 2000
    assert fit(replace(LLAMA, context_length=10_000), 64 * GIB, Wish()).context == 10_000


def bare(facts: ModelFacts, context: int, kv_type: str) -> int:
    return predict(facts, context, kv_type, 4, embeddings=False).total


def test_a_better_type_goes_before_more_than_a_comfortable_context() -> None:
    plan = fit(LLAMA, bare(LLAMA, 16_384, "f16"), Wish())
    assert (plan.kv_type, plan.context, plan.prompt_cache_bytes) == ("f16", 16_384, 0)


def test_a_comfortable_context_goes_before_the_best_type() -> None:
    plan = fit(LLAMA, bare(LLAMA, 16_384, "f16") - 1, Wish())
    assert plan.kv_type == "q8_0" and plan.context > 16_384
    plan = fit(LLAMA, bare(LLAMA, 8192, "q8_0"), Wish())
    assert (plan.kv_type, plan.context) == ("q8_0", 8192)


def test_a_type_that_changes_answers_is_taken_only_where_nothing_else_runs() -> None:
    assert fit(LLAMA, bare(LLAMA, 4096, "q8_0"), Wish()).kv_type == "q8_0"
    assert fit(LLAMA, bare(LLAMA, 4096, "q8_0") - 1, Wish()).kv_type == "q4_0"


def test_a_generating_model_embeds_where_there_is_room_and_an_encoder_always() -> None:
    embedding = predict(LLAMA, 65_536, "f16", 4).total
    assert fit(LLAMA, embedding, Wish()).embeddings
    assert not fit(LLAMA, embedding - 1, Wish()).embeddings
    assert fit(ENCODER, least(ENCODER, Wish()).total, Wish()).embeddings


@pytest.mark.parametrize("facts", [LLAMA, SLIDING, HYBRID, ENCODER])
def test_the_least_need_is_the_border_of_what_is_refused(facts: ModelFacts) -> None:
    border = least(facts, Wish()).total
    assert fit(facts, border, Wish()).need.total == border
    with pytest.raises(DoesNotFit):
        fit(facts, border - 1, Wish())


def test_what_does_not_fit_is_refused_with_what_is_needed_and_what_there_is() -> None:
    with pytest.raises(DoesNotFit) as caught:
        fit(LLAMA, 4_000_000_000, Wish())
    message = str(caught.value)
    assert "needs 5.2 GB" in message and "4.0 GB are available" in message and "4.9 GB of weights" in message
    assert "smaller model" in message


def test_a_context_that_was_asked_for_is_kept_or_refused() -> None:
    assert fit(LLAMA, 64 * GIB, Wish(context=100_000)).context == 100_000
    assert fit(LLAMA, 64 * GIB, Wish(context=512)).context == 512
    assert fit(LLAMA, 8 * GIB, Wish(context=16_384)).kv_type == "f16"
    assert fit(LLAMA, 8 * GIB, Wish(context=32_768)).kv_type == "q8_0"
    with pytest.raises(DoesNotFit, match=r"context of 100000 tokens.*smaller --ctx-size"):
        fit(LLAMA, 8 * GIB, Wish(context=100_000))


def test_a_context_beyond_the_training_is_refused() -> None:
    with pytest.raises(RequestRefused, match="use --ctx-size 131072 or less"):
        fit(LLAMA, 64 * GIB, Wish(context=200_000))


def test_a_model_that_does_not_say_its_context_gets_the_least() -> None:
    silent = replace(LLAMA, context_length=0)
    assert fit(silent, 64 * GIB, Wish()).context == 4096
    assert fit(silent, 64 * GIB, Wish(context=9000)).context == 9000


def test_texts_that_are_embedded_in_one_piece_are_one_batch() -> None:
    plan = fit(ENCODER, 8 * GIB, Wish())
    assert (plan.context, plan.batch) == (2048, 2048)
    assert batch_for(replace(LLAMA, pooling="last"), 8192, BATCH) == BATCH


BUDGETS = st.integers(4 * GIB, 64 * GIB)
MODELS = st.sampled_from([LLAMA, SLIDING, HYBRID, ENCODER])


@given(
    MODELS, BUDGETS, st.none() | st.integers(256, 131_072), st.integers(1, 16), st.sampled_from([256, 512])
)
def test_what_is_chosen_fits(
    facts: ModelFacts, budget: int, context: int | None, slots: int, batch: int
) -> None:
    wish = Wish(context, slots, batch)
    try:
        plan = fit(facts, budget, wish)
    except (DoesNotFit, RequestRefused):
        return
    assert plan.need.total <= budget
    assert context in (None, plan.context)
    assert plan.need == predict(
        facts,
        plan.context,
        plan.kv_type,
        slots,
        embeddings=plan.embeddings,
        prompt_cache_bytes=plan.prompt_cache_bytes,
        batch=batch,
    )


@given(MODELS, st.integers(4, 64), st.integers(0, 60), st.sampled_from(list(KV_TYPES)))
def test_more_context_never_needs_less(facts: ModelFacts, blocks: int, more: int, kv_type: str) -> None:
    less, longer = (predict(facts, 1024 * count, kv_type, 4).total for count in (blocks, blocks + more))
    assert less <= longer


@given(MODELS, BUDGETS, st.integers(0, GIB))
def test_more_memory_never_gives_a_worse_type(facts: ModelFacts, budget: int, more: int) -> None:
    try:
        poor = fit(facts, budget, Wish())
    except DoesNotFit:
        return
    rich = fit(facts, budget + more, Wish())
    order = list(KV_TYPES)
    assert order.index(rich.kv_type) <= order.index(poor.kv_type)
