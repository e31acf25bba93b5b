"""Answers as the servers give them (shortened), and answers that none should give."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesh_llm.engine.listing import MODELS_MAX, NoListing, read_listing

VLLM = {
    "object": "list",
    "data": [
        {
            "id": "meta-llama/Llama-3.1-8B-Instruct",
            "object": "model",
            "created": 1_727_000_000,
            "owned_by": "vllm",
            "root": "meta-llama/Llama-3.1-8B-Instruct",
            "parent": None,
            "max_model_len": 131_072,
            "permission": [{"id": "modelperm-1", "object": "model_permission", "is_blocking": False}],
        }
    ],
}
OLLAMA = {
    "object": "list",
    "data": [
        {"id": "llama3.2:latest", "object": "model", "created": 1_727_000_000, "owned_by": "library"},
        {"id": "nomic-embed-text:latest", "object": "model", "created": 1, "owned_by": "library"},
    ],
}
OLLAMA_TAGS = {
    "models": [
        {
            "name": "llama3.2:latest",
            "model": "llama3.2:latest",
            "size": 2_019_393_189,
            "details": {"family": "llama", "parameter_size": "3.2B", "quantization_level": "Q4_K_M"},
        }
    ]
}
LLAMA_SERVER = {
    "models": [{"name": "small", "model": "small", "capabilities": ["completion"]}],
    "object": "list",
    "data": [
        {
            "id": "small",
            "object": "model",
            "owned_by": "llamacpp",
            "meta": {"n_vocab": 49152, "n_ctx_train": 8192, "n_embd": 576, "n_params": 134515008, "size": 98},
        }
    ],
}


def test_vllm_tells_the_context_that_it_serves():
    (model,) = read_listing(VLLM, now=7)
    assert (model.name, model.context_length, model.created) == (
        "meta-llama/Llama-3.1-8B-Instruct",
        131_072,
        7,
    )
    assert (model.bytes, model.facts.parameters, model.facts.quantisation) == (0, 0, "unknown")


def test_ollama_tells_names_only_and_its_embedders_are_known_by_theirs():
    chat, embedder = read_listing(OLLAMA, now=7)
    assert (chat.name, chat.context_length, chat.facts.pooling) == ("llama3.2:latest", 0, None)
    assert (embedder.name, embedder.facts.pooling) == ("nomic-embed-text:latest", "mean")


@pytest.mark.parametrize("answer", [{"object": "list", "data": None}, {"data": []}, {"models": None}])
def test_a_server_without_a_model_has_an_empty_list(answer: dict[str, Any]):
    assert read_listing(answer, now=7) == ()


def test_nested_fields_are_read_too():
    (tagged,) = read_listing(OLLAMA_TAGS, now=7)
    assert (tagged.facts.architecture, tagged.facts.quantisation) == ("llama", "Q4_K_M")
    assert tagged.bytes == 2_019_393_189
    (small,) = read_listing(LLAMA_SERVER, now=7)
    assert (small.facts.parameters, small.facts.embedding_length) == (134_515_008, 576)
    assert (small.facts.context_length, small.context_length) == (8192, 0)


@pytest.mark.parametrize("answer", [None, [], "x", 3, {}, {"data": "x"}, {"data": {}}, {"error": "no"}])
def test_what_is_no_list_of_models_is_told(answer: object):
    with pytest.raises(NoListing, match="does not speak OpenAI's API"):
        read_listing(answer, now=7)


def test_a_node_of_ours_is_to_be_joined_not_used_as_an_endpoint():
    ours = {"object": "list", "data": [{"id": "m", "owned_by": "mesh-llm"}]}
    with pytest.raises(NoListing, match="--join"):
        read_listing(ours, now=7)


@pytest.mark.parametrize(
    "entry", ["x", {}, {"id": 3}, {"id": ""}, {"id": "a\nb"}, {"id": "\ud800"}, {"id": "x" * 201}]
)
def test_entries_without_a_usable_name_are_left_out(entry: object):
    assert [model.name for model in read_listing({"data": [entry, {"id": "good"}]}, now=7)] == ["good"]


@pytest.mark.parametrize("number", [True, -1, 0, 1.5, "8192", None, 2**64, [8192]])
def test_strange_numbers_count_as_unknown(number: object):
    (model,) = read_listing({"data": [{"id": "m", "max_model_len": number}]}, now=7)
    assert model.context_length == 0


def test_a_list_is_read_up_to_its_bound_and_each_name_once():
    many = [{"id": f"m{number}"} for number in range(3 * MODELS_MAX)]
    assert len(read_listing({"data": many}, now=7)) == MODELS_MAX
    assert len(read_listing({"data": [{"id": "m"}, {"id": "m"}]}, now=7)) == 1


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.sampled_from(["data", "models", "id", "meta"]), inner),
    max_leaves=20,
)


@given(answer=anything)
def test_no_answer_breaks_the_reader(answer: object):
    try:
        models = read_listing(answer, now=7)
    except NoListing:
        return
    assert all(model.name for model in models)
