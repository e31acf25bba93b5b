from pathlib import Path

import pytest

from mesh_llm.core.errors import RequestRefused
from mesh_llm.models.places import HUB, ModelPlaces

HOME = Path("/node")


def places(**environ: str) -> ModelPlaces:
    return ModelPlaces.from_environment({"HOME": "/user", **environ}, HOME)


def test_without_variables_the_usual_folders_are_meant() -> None:
    assert places() == ModelPlaces(
        store=Path("/user/.models"),
        hub_cache=Path("/user/.cache/huggingface/hub"),
        own_catalogue=Path("/node/catalogue.toml"),
        endpoint=HUB,
        token_file=Path("/user/.cache/huggingface/token"),
    )


@pytest.mark.parametrize(
    ("environ", "cache"),
    [
        ({"XDG_CACHE_HOME": "/x"}, "/x/huggingface/hub"),
        ({"XDG_CACHE_HOME": "/x", "HF_HOME": "/h"}, "/h/hub"),
        ({"HF_HOME": "/h", "HF_HUB_CACHE": "/c"}, "/c"),
    ],
)
def test_the_hubs_cache_is_where_its_own_tools_put_it(environ: dict[str, str], cache: str) -> None:
    assert places(**environ).hub_cache == Path(cache)


def test_each_variable_is_honoured() -> None:
    found = places(
        MESH_LLM_MODELS="/big",
        HF_TOKEN=" hf_x ",
        HF_ENDPOINT="http://mirror.lan:8080/hf/",
        HF_HUB_OFFLINE="1",
    )
    assert (found.store, found.token, found.endpoint) == (Path("/big"), "hf_x", "http://mirror.lan:8080/hf")
    assert found.offline


def test_an_empty_variable_is_none() -> None:
    assert places(MESH_LLM_MODELS="", HF_TOKEN="", HF_ENDPOINT="", HF_HUB_OFFLINE="0") == places()


def test_proxies_are_taken_over_and_lower_case_wins() -> None:
    found = places(
        HTTPS_PROXY="http://upper", https_proxy="http://lower", NO_PROXY="lan", ALL_PROXY="http://all"
    )
    assert found.proxies == {"https": "http://lower", "no": "lan", "all": "http://all"}


@pytest.mark.parametrize("endpoint", ["huggingface.co", "ftp://hub", "https://", "https://me:secret@hub"])
def test_an_endpoint_that_is_no_plain_url_is_refused(endpoint: str) -> None:
    with pytest.raises(RequestRefused, match="HF_ENDPOINT") as refusal:
        places(HF_ENDPOINT=endpoint)
    assert "secret" not in str(refusal.value)


def test_the_token_is_not_shown() -> None:
    assert "hf_secret" not in repr(places(HF_TOKEN="hf_secret"))
