import pytest

from mesh_llm.core.errors import EngineFailed, ModelNotFound, RequestRefused, Unavailable
from mesh_llm.core.offers import ModelOffer, ServedOffer
from mesh_llm.core.serving import Endpoint, Failed, Loading, Ready, Restarting, Stopped, Waiting
from mesh_llm.core.stages import LayerRange, StageHolding
from mesh_llm.gateway.offers import capabilities, offer_of
from mesh_llm.gateway.routing import choose, endpoint_of, require, standing_elsewhere, standing_here
from tests.gateway.engine import FixedBackend, a_model

READY = Ready(Endpoint("http://127.0.0.1:1", "k"))
SMALL = FixedBackend(a_model("small", aliases=("tiny",), bytes=1), READY)
LARGE = FixedBackend(a_model("Large-8B", aliases=(), bytes=9), READY)
EMBEDDER = FixedBackend(a_model("embedder", aliases=(), bytes=99, pooling="mean"), READY)


def chosen(backends, requested, capability=None) -> str:
    return choose([standing_here(backend) for backend in backends], requested, capability).name


@pytest.mark.parametrize("name", ["small", "SMALL", "tiny", "Tiny", " small "])
def test_a_model_goes_by_its_name_and_aliases_in_any_case(name):
    assert chosen([SMALL, LARGE], name) == "small"


def test_an_exact_name_wins_over_one_in_another_case():
    other = FixedBackend(a_model("SMALL", aliases=()), READY)
    assert chosen([SMALL, other], "SMALL") == "SMALL"
    assert chosen([SMALL, other], "small") == "small"
    named_like_an_alias = FixedBackend(a_model("tiny", bytes=0), READY)
    assert chosen([SMALL, named_like_an_alias], "tiny") == "tiny"


@pytest.mark.parametrize("name", [None, "auto", "Auto", ""])
def test_without_a_name_the_largest_loaded_model_answers(name):
    assert chosen([SMALL, LARGE], name) == "Large-8B"


def test_automatic_choice_prefers_a_ready_model_over_a_larger_one_that_loads():
    loading = FixedBackend(a_model("huge", bytes=99), Loading(0.5))
    assert chosen([SMALL, loading], None) == "small"
    failed = FixedBackend(a_model("huge", bytes=99), Failed("no"))
    assert chosen([failed, FixedBackend(a_model("slow"), Loading(0))], None) == "slow"


def test_automatic_choice_prefers_a_model_that_can():
    assert chosen([SMALL, EMBEDDER], None, "chat") == "small"
    assert chosen([SMALL, EMBEDDER], None, "embeddings") == "embedder"


def test_automatic_choice_does_not_depend_on_the_order():
    twin = FixedBackend(a_model("twin", bytes=1), READY)
    assert chosen([SMALL, twin], None) == chosen([twin, SMALL], None)


def test_a_model_elsewhere_is_chosen_like_one_here():
    huge = standing_elsewhere(ServedOffer(ModelOffer("huge", ("big",), bytes=99), ready=True))
    assert choose([standing_here(SMALL), huge], None).name == "huge"
    assert choose([standing_here(SMALL), huge], "BIG").name == "huge"
    loading = standing_elsewhere(ServedOffer(ModelOffer("huge", bytes=99), ready=False))
    assert choose([standing_here(SMALL), loading], "auto").name == "small"


def test_an_unknown_name_is_refused_with_the_known_ones():
    with pytest.raises(ModelNotFound, match="Known: Large-8B, small"):
        chosen([SMALL, LARGE], "gpt-4")
    many = [FixedBackend(a_model(f"model-{number:03}", aliases=()), READY) for number in range(60)]
    with pytest.raises(ModelNotFound, match=r"model-049, \.\.\.\.$"):
        chosen(many, "gpt-4")


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
    with pytest.raises(Unavailable, match=r"cannot run yet: 2\.0 GB are missing"):
        endpoint_of(SMALL.model, Waiting("2.0 GB are missing"))
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
    require(offer_of(a_model()), "embeddings")
    require(offer_of(a_model()), None)
    with pytest.raises(RequestRefused, match=r"does not do chat, only embeddings\. Name another"):
        require(offer_of(EMBEDDER.model), "chat")
    with pytest.raises(RequestRefused, match="smaller --ctx-size"):
        require(offer_of(a_model(embeddings=False)), "embeddings")


@pytest.mark.parametrize("capability", ["embeddings", "rerank"])
def test_a_split_model_says_why_it_gives_no_numbers(capability):
    stages = tuple(StageHolding(node * 64, "", LayerRange(0, 1), node == "b") for node in "ab")
    with pytest.raises(RequestRefused, match="split over 2 stages"):
        require(offer_of(a_model(embeddings=False, stages=stages)), capability)
