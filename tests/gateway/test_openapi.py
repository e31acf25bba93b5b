"""What `docs/openapi.json` promises: every path is there, and no request of any kind gets a 500."""

import contextlib
import json
import math
import os
import random
from pathlib import Path
from typing import Any

import hypothesis
import pytest
import schemathesis
from schemathesis import GenerationMode

from mesh_llm.gateway.app import Gateway
from mesh_llm.gateway.endpoints import ROUTES
from mesh_llm.runtime.clock import Clock
from tests.engine.head.heads import kept, lone_head
from tests.gateway.engine import Engine, a_backend
from tests.gateway.serving import serving

PAGE = Path(__file__).parents[2] / "docs" / "openapi.json"
DOCUMENT = json.loads(PAGE.read_text("utf-8"))

CASES = int(os.environ.get("MESH_LLM_FUZZ", "120"))
"""Of a whole model and of a head together; 2,000 and more before a release."""

CONTEXT = 256
TOKENS_MAX = 3
SECONDS_MAX = 120.0
"""Of one request: some get round `TOKENS_MAX`, and then answer until their context is full."""
LENGTHS = ("max_tokens", "max_completion_tokens", "max_output_tokens", "n_predict")

POSTS = sorted(path for path, item in DOCUMENT["paths"].items() if "post" in item)
MODES = (GenerationMode.POSITIVE, GenerationMode.NEGATIVE)
EACH = math.ceil(CASES / (len(POSTS) * len(MODES) * 2))


def test_the_document_names_every_path_and_no_other():
    gateway = Gateway(list, api_key=None, clock=Clock(), chance=random.Random(1))
    served = {
        route.resource.canonical
        for route in gateway.application().router.routes()
        if route.resource is not None
    }
    assert set(DOCUMENT["paths"]) == served
    assert set(POSTS) == set(ROUTES)


@pytest.fixture(scope="module", params=["whole", "head"])
def url(request, smollm2):
    with contextlib.ExitStack() as stack:
        if request.param == "whole":
            engine = Engine(smollm2, context=CONTEXT)
            stack.callback(engine.stop)
            endpoint = engine.endpoint
        else:
            endpoint = stack.enter_context(kept(lambda: lone_head(smollm2, context_length=CONTEXT)))
        backend = a_backend(endpoint, context_length=CONTEXT, embeddings=request.param == "whole")
        yield stack.enter_context(kept(lambda: serving([backend])))[1]


@pytest.mark.real
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("mode", MODES, ids=lambda mode: mode.value)
@pytest.mark.parametrize("path", POSTS)
def test_no_request_is_answered_with_a_500(path: str, mode: GenerationMode, url: str):
    schema = schemathesis.openapi.from_dict(DOCUMENT)

    @hypothesis.settings(
        max_examples=EACH,
        deadline=None,
        database=None,
        suppress_health_check=list(hypothesis.HealthCheck),
        phases=[hypothesis.Phase.generate],
    )
    @hypothesis.given(schema[path]["POST"].as_strategy(generation_mode=mode))
    def ask(case: Any) -> None:
        shorten(case.body)
        answer = case.call(base_url=url, timeout=SECONDS_MAX)
        assert answer.status_code == 200 or 400 <= answer.status_code < 500, (case.body, answer.text)
        if answer.status_code != 200:
            error = json.loads(answer.text)["error"]
            assert error["message"] and error["type"]

    ask()


def shorten(body: Any) -> None:
    """Answers cost time, and their length is not what is tried here."""
    if isinstance(body, dict):
        for name in LENGTHS:
            is_long = isinstance(body.get(name), int | float) and body[name] > TOKENS_MAX
            if is_long or (name in body and body[name] is None):
                body[name] = TOKENS_MAX
        body.setdefault("max_output_tokens" if "input" in body else "n_predict", TOKENS_MAX)
