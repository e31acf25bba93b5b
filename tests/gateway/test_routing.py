import pytest

from mesh_llm.core.errors import EngineFailed, ModelNotFound, RequestRefused, Unavailable
from mesh_llm.core.serving import Endpoint, Failed, Loading, Ready, Restarting, Stopped
from mesh_llm.gateway.offers import capabilities
from mesh_llm.gateway.routing import choose, endpoint_of, require
from tests.gateway.engine import FixedBackend, a_model

READY = Ready(Endpoint("http://127.0.0.1:1", "k"))
SMALL = FixedBackend(a_model("small", aliases=("tiny",), bytes=1), READY)
LARGE = FixedBackend(a_model("Large-8B", aliases=(), bytes=9), READY)
EMBEDDER = FixedBackend(a_model("embedder", aliases=(), bytes=99, pooling="mean"), READY)


@pytest.mark.parametrize("name", ["small", "SMALL", "tiny", "Tiny", " small "])
def test_a_model_goes_by_its_name_and_aliases_in_any_case(name):
    assert choose([SMALL, LARGE], name) is SMALL


def test_an_exact_name_wins_over_one_in_another_case():
    other = FixedBackend(a_model("SMALL", aliases=()), READY)
    assert choose([SMALL, other], "SMALL") is other


@pytest.mark.parametrize("name", [None, "auto", "Auto", ""])
def test_without_a_name_the_largest_loaded_model_answers(name):
    assert choose([SMALL, LARGE], name) is LARGE


def test_automatic_choice_prefers_a_ready_model_over_a_larger_one_that_loads():
    loading = FixedBackend(a_model("huge", bytes=99), Loading(0.5))
    assert choose([SMALL, loading], None) is SMALL
    failed = FixedBackend(a_model("huge", bytes=99), Failed("no"))
    assert choose([failed, FixedBackend(a_model("slow"), Loading(0))], None).model.name == "slow"


def test_automatic_choice_prefers_a_model_that_can():
    assert choose([SMALL, EMBEDDER], None, "chat") is SMALL
    assert choose([SMALL, EMBEDDER], None, "embeddings") is EMBEDDER


def test_automatic_choice_does_not_depend_on_the_order():
    twin = FixedBackend(a_model("twin", bytes=1), READY)
    assert choose([SMALL, twin], None) is choose([twin, SMALL], None)


def test_an_unknown_name_is_refused_with_the_known_ones():
    with pytest.raises(ModelNotFound, match="Known: Large-8B, small"):
        choose([SMALL, LARGE], "gpt-4")


def test_a_node_without_models_says_how_to_get_one():
    with pytest.raises(ModelNotFound, match="--model"):
        choose([], None)


def test_only_a_ready_model_has_an_endpoint():
    assert endpoint_of(SMALL.model, READY) is READY.endpoint
    with pytest.raises(Unavailable, match="30%"):
        endpoint_of(SMALL.model, Loading(0.3))
    with pytest.raises(Unavailable, match="out of memory") as restarting:
        endpoint_of(SMALL.model, Restarting("out of memory", 2, 8))
    assert restarting.value.retry_after_s == 8
    with pytest.raises(EngineFailed, match="no such file"):
        endpoint_of(SMALL.model, Failed("no such file"))
    with pytest.raises(Unavailable):
        endpoint_of(SMALL.model, Stopped())


def test_capabilities_follow_from_the_file():
    assert capabilities(a_model()) == ("chat", "completions", "tools", "embeddings")
    assert "embeddings" not in capabilities(a_model(embeddings=False))
    assert capabilities(a_model(vision=True))[-1] == "vision"
    assert capabilities(EMBEDDER.model) == ("embeddings",)
    assert capabilities(a_model(pooling="rank")) == ("rerank",)


def test_what_a_model_cannot_do_is_refused_with_what_it_can():
    require(a_model(), "embeddings")
    require(a_model(), None)
    with pytest.raises(RequestRefused, match=r"does not do chat, only embeddings\. Name another"):
        require(EMBEDDER.model, "chat")
    with pytest.raises(RequestRefused, match="smaller --ctx-size"):
        require(a_model(embeddings=False), "embeddings")
