"""Facts of a model from headers: real ones, ones made for each kind of architecture, and bad ones."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesh_llm.core.errors import ModelDamaged
from mesh_llm.models.gguf.contents import Header, Skipped, Value
from mesh_llm.models.gguf.facts import read_file_facts
from mesh_llm.models.gguf.header import read_header
from mesh_llm.models.gguf.model_facts import facts_of
from mesh_llm.models.gguf.tensors import STORAGE_TYPES, TensorInfo
from tests.models.gguf.gguf_bytes import STRING, U32, MemorySource, Tensor, gguf_bytes, scalar


def header(architecture: str, keys: Mapping[str, Value], tensors: Sequence[TensorInfo] = ()) -> Header:
    plain = {"block_count": 4, "embedding_length": 64, "attention.head_count": 8, "context_length": 4096}
    metadata: dict[str, Value] = {"general.architecture": architecture}
    for key, value in {**plain, **keys}.items():
        metadata[key if key.startswith(("general.", "split.", "tokenizer.")) else f"{architecture}.{key}"] = (
            value
        )
    return Header("test.gguf", 3, metadata, tuple(tensors), 32, 0, 0)


def weight(name: str) -> TensorInfo:
    return TensorInfo(name, (32, 2), STORAGE_TYPES[2], 0, 36)


@pytest.mark.real
def test_a_real_llama_is_known(smollm2: Path) -> None:
    facts = read_file_facts([smollm2])
    assert (facts.architecture, facts.quantisation, facts.parameters) == ("llama", "Q4_1", 134_515_008)
    assert (facts.context_length, facts.vocabulary, facts.embedding_length) == (8192, 49_152, 576)
    assert (facts.layers, set(facts.kv_heads), facts.key_length, facts.value_length) == (30, {3}, 64, 64)
    assert facts.sliding_window == 0 and not any(facts.sliding_layers) and facts.recurrent_bytes == 0
    assert facts.chat_template is not None and "<|im_start|>" in facts.chat_template


@pytest.mark.real
def test_a_real_gemma_slides_in_five_of_six_layers(gemma3: Path) -> None:
    facts = read_file_facts([gemma3])
    assert (facts.architecture, facts.quantisation, facts.vocabulary) == ("gemma3", "Q4_K_M", 262_144)
    assert (facts.sliding_window, facts.sliding_layers) == (512, ((True,) * 5 + (False,)) * 3)
    assert (facts.key_length, facts.heads) == (256, 4)


def test_lengths_of_heads_default_to_the_width_over_the_heads() -> None:
    facts = facts_of([header("llama", {})])
    assert (facts.key_length, facts.value_length, facts.kv_heads) == (8, 8, (8, 8, 8, 8))


def test_kv_heads_may_differ_in_each_layer() -> None:
    facts = facts_of([header("deci", {"attention.head_count_kv": (8, 0, 2, 0)})])
    assert facts.kv_heads == (8, 0, 2, 0)


def test_latent_attention_caches_one_vector_and_no_values() -> None:
    keys = {
        "attention.head_count_kv": 1,
        "attention.key_length": 576,
        "attention.value_length": 512,
        "attention.key_length_mla": 192,
        "attention.value_length_mla": 128,
    }
    facts = facts_of([header("deepseek2", keys)])
    assert (facts.kv_heads[0], facts.key_length, facts.value_length) == (1, 576, 0)


def test_latent_attention_of_old_files_is_cached_in_full() -> None:
    keys = {"attention.key_length": 192, "attention.value_length": 128}
    facts = facts_of([header("deepseek2", keys)])
    assert (facts.kv_heads[0], facts.key_length, facts.value_length) == (8, 192, 128)


@pytest.mark.parametrize(
    ("architecture", "keys", "window", "pattern"),
    [
        ("gpt-oss", {"attention.sliding_window": 128}, 128, "sdsdsdsd"),
        ("gemma2", {}, 4096, "sdsdsdsd"),
        ("cohere2moe", {"attention.sliding_window": 512}, 512, "dsssdsss"),
        ("smallthinker", {"attention.sliding_window": 100}, 4096, "dsssdsss"),
        ("llama4", {}, 8192, "sssdsssd"),
        ("llama4", {"attention.sliding_window": 0}, 0, "dddddddd"),
        ("gemma3", {}, 0, "dddddddd"),
        (
            "gemma3",
            {"attention.sliding_window": 64, "attention.sliding_window_pattern": 2},
            64,
            "sdsdsdsd",
        ),
        ("exaone4", {"attention.sliding_window": 4096}, 0, "dddddddd"),
        ("phi3", {"attention.sliding_window": 2047}, 0, "dddddddd"),
        ("an-unknown-one", {"attention.sliding_window": 512}, 0, "dddddddd"),
        (
            "step35",
            {
                "attention.sliding_window": 512,
                "attention.sliding_window_pattern": tuple(c == "s" for c in "dssdssdd"),
            },
            512,
            "dssdssdd",
        ),
    ],
)
def test_layers_slide_where_the_engine_lets_them(
    architecture: str, keys: dict[str, Value], window: int, pattern: str
) -> None:
    facts = facts_of([header(architecture, {"block_count": 8, **keys})])
    assert facts.sliding_window == window
    assert "".join("s" if slides else "d" for slides in facts.sliding_layers) == pattern


def test_heads_of_sliding_layers_may_have_their_own_length_and_late_layers_no_cache() -> None:
    keys: dict[str, Value] = {
        "attention.sliding_window": 512,
        "attention.sliding_window_pattern": (True, True, True, False),
        "attention.shared_kv_layers": 1,
        "attention.key_length": 512,
        "attention.value_length": 512,
        "attention.key_length_swa": 256,
        "attention.value_length_swa": 256,
    }
    facts = facts_of([header("gemma4", keys)])
    assert (facts.key_length_sliding, facts.value_length_sliding) == (256, 256)
    assert facts.kv_heads == (8, 8, 8, 0)


SSM = {"ssm.conv_kernel": 4, "ssm.inner_size": 128, "ssm.state_size": 16, "ssm.group_count": 2}
STATE_BYTES = (3 * (128 + 2 * 2 * 16) + 16 * 128) * 4


@pytest.mark.parametrize(
    ("architecture", "keys", "kv_heads", "recurrent_bytes"),
    [
        ("mamba2", SSM, (0, 0, 0, 0), 4 * STATE_BYTES),
        ("granitehybrid", SSM | {"attention.head_count_kv": (0, 2, 0, 2)}, (0, 2, 0, 2), 2 * STATE_BYTES),
        ("qwen3next", SSM | {"attention.head_count_kv": 2}, (0, 0, 0, 2), 3 * STATE_BYTES),
        (
            "qwen35",
            SSM | {"attention.head_count_kv": 2, "full_attention_interval": 2},
            (0, 2, 0, 2),
            2 * STATE_BYTES,
        ),
        (
            "nemotron_h",
            SSM | {"attention.head_count_kv": (0, 2, 0, 0), "feed_forward_length": (0, 0, 64, 0)},
            (0, 2, 0, 0),
            2 * STATE_BYTES,
        ),
        ("falcon-h1", SSM | {"attention.head_count_kv": 2}, (2, 2, 2, 2), 4 * STATE_BYTES),
        ("an-unknown-hybrid", SSM | {"attention.head_count_kv": 2}, (2, 2, 2, 2), 4 * STATE_BYTES),
        ("rwkv7", {"wkv.head_size": 64}, (0, 0, 0, 0), 4 * 64 * (2 + 64) * 4),
        (
            "lfm2",
            {"shortconv.l_cache": 3, "attention.head_count_kv": (0, 0, 2, 0)},
            (0, 0, 2, 0),
            3 * 64 * 2 * 4,
        ),
        (
            "kimi-linear",
            {"kda.head_dim": 16, "ssm.conv_kernel": 4, "attention.head_count_kv": (0, 0, 0, 1)},
            (0, 0, 0, 1),
            3 * (3 * 3 * 8 * 16 + 16 * 16 * 8) * 4,
        ),
        ("minimax-01", {"block_count": 8, "attention.key_length": 16}, (0,) * 7 + (8,), 7 * 16 * 16 * 8 * 4),
    ],
)
def test_recurrent_layers_keep_a_state_and_no_cache(
    architecture: str, keys: dict[str, Value], kv_heads: tuple[int, ...], recurrent_bytes: int
) -> None:
    facts = facts_of([header(architecture, keys)])
    assert (facts.kv_heads, facts.recurrent_bytes) == (kv_heads, recurrent_bytes)


def test_layers_that_only_draft_keep_nothing() -> None:
    facts = facts_of([header("glm4moe", {"block_count": 5, "nextn_predict_layers": 1})])
    assert facts.layers == 4


def test_an_encoder_keeps_nothing_and_says_how_it_pools() -> None:
    facts = facts_of([header("bert", {"pooling_type": 2})])
    assert (facts.kv_heads, facts.pooling) == ((0, 0, 0, 0), "cls")


def test_experts_and_the_widest_layer_are_known() -> None:
    keys = {
        "expert_count": 128,
        "expert_used_count": 8,
        "expert_feed_forward_length": 768,
        "expert_shared_feed_forward_length": 512,
        "feed_forward_length": 6144,
    }
    facts = facts_of([header("qwen3moe", keys)])
    assert (facts.experts, facts.experts_used, facts.feed_forward_length) == (128, 8, 8 * 768 + 512)


@pytest.mark.parametrize(
    ("number", "name"), [(15, "Q4_K_M"), (1024 + 7, "Q8_0"), (38, "MXFP4_MOE"), (999, "unknown")]
)
def test_the_file_type_has_its_usual_name(number: int, name: str) -> None:
    assert facts_of([header("llama", {"general.file_type": number})]).quantisation == name


def test_a_header_without_file_type_has_an_unknown_one() -> None:
    assert facts_of([header("llama", {})]).quantisation == "unknown"


def split(number: int, count: int, tensors: Sequence[TensorInfo], total: int) -> Header:
    keys = {"split.no": number, "split.count": count, "split.tensors.count": total}
    return header("llama", keys, tensors)


def test_parts_of_a_split_model_are_one_model() -> None:
    parts = [split(0, 2, [weight("a")], 3), split(1, 2, [weight("b"), weight("c")], 3)]
    facts = facts_of(parts)
    assert (facts.parameters, facts.weights_bytes) == (3 * 64, 3 * 36)


@pytest.mark.parametrize(
    ("parts", "said"),
    [
        ([split(0, 2, [weight("a")], 2)], "a model of 2 files, here are 1"),
        ([header("llama", {}), header("llama", {})], "a model of 1 files, here are 2"),
        ([split(0, 2, [weight("a")], 2), split(0, 2, [weight("b")], 2)], "part 1 of 2, expected was 2 of 2"),
        ([split(1, 2, [weight("a")], 2), split(0, 2, [weight("b")], 2)], "part 2 of 2, expected was 1 of 2"),
        ([split(0, 2, [weight("a")], 2), split(1, 3, [weight("b")], 2)], "part 2 of 3, expected was 2 of 2"),
        ([split(0, 2, [weight("a")], 5), split(1, 2, [weight("b")], 5)], "5 announced"),
        ([split(0, 2, [weight("a")], 2), split(1, 2, [weight("a")], 2)], "do not belong together"),
    ],
)
def test_parts_that_are_missing_or_strange_are_refused(parts: list[Header], said: str) -> None:
    with pytest.raises(ModelDamaged, match=said):
        facts_of(parts)


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ({"block_count": 0}, "claims 0 layers"),
        ({"block_count": 10_000}, "claims 10000 layers"),
        ({"block_count": "four"}, "should be a number"),
        ({"block_count": -1}, "should be a number"),
        ({"block_count": 2**40}, "should be a number"),
        ({"embedding_length": 1.5}, "should be a number"),
        ({"nextn_predict_layers": 4}, "only draft"),
        ({"attention.head_count_kv": (1, 2)}, "2 entries for 4 layers"),
        ({"attention.head_count_kv": Skipped("number", 9000)}, "should be a number"),
        ({"attention.head_count_kv": ("a", "b", "c", "d")}, "should be a number"),
        ({"general.architecture": ""}, "lacks `general.architecture`"),
        ({"general.type": "mmproj"}, "projector"),
        ({"general.type": "adapter"}, "LoRA"),
    ],
)
def test_keys_that_make_no_sense_are_refused(keys: dict[str, Value], said: str) -> None:
    with pytest.raises(ModelDamaged, match=said):
        facts_of([header("llama", keys)])


def test_missing_keys_are_named() -> None:
    content = gguf_bytes([("general.architecture", scalar(STRING, "llama"))], [Tensor()], data_bytes=128)
    with pytest.raises(ModelDamaged, match=r"lacks `llama.block_count`"):
        facts_of([read_header(MemorySource(content))])
    content = gguf_bytes([("llama.block_count", scalar(U32, 4))])
    with pytest.raises(ModelDamaged, match=r"lacks `general.architecture`"):
        facts_of([read_header(MemorySource(content))])


VALUES = st.one_of(
    st.integers(-(2**63), 2**64),
    st.floats(),
    st.booleans(),
    st.text(max_size=5),
    st.lists(st.integers(-1, 600), max_size=9).map(tuple),
    st.builds(Skipped, st.just("number"), st.integers(0, 2**60)),
)
KEYS = st.sampled_from(
    [
        "block_count",
        "embedding_length",
        "attention.head_count",
        "attention.head_count_kv",
        "num_loops",
        "pooling_type",
        "attention.sliding_window",
        "attention.sliding_window_pattern",
        "nextn_predict_layers",
        "ssm.state_size",
        "wkv.head_size",
        "shortconv.l_cache",
        "kda.head_dim",
        "full_attention_interval",
        "general.file_type",
        "attention.shared_kv_layers",
        "expert_used_count",
        "split.count",
    ]
)
ARCHITECTURES = st.sampled_from(
    ["llama", "gemma3", "qwen3next", "mamba", "jamba", "nemotron_h", "lfm2", "gemma4", "graniteswitch", "x"]
)


@given(ARCHITECTURES, st.dictionaries(KEYS, VALUES))
def test_whatever_a_header_says_there_are_facts_or_damage(architecture: str, keys: dict[str, Value]) -> None:
    try:
        facts = facts_of([header(architecture, keys)])
    except ModelDamaged:
        return
    assert len(facts.sliding_layers) == len(facts.kv_heads) <= 513
    assert facts.recurrent_bytes >= 0
