"""What a head refuses, and that nothing that it is asked ends it."""

import pytest

from tests.engine.head.heads import client, kept, lone_head

pytestmark = pytest.mark.real


@pytest.fixture(scope="module")
def head(smollm2):
    with kept(lambda: lone_head(smollm2)) as endpoint:
        yield endpoint


@pytest.fixture
async def ours(head):
    async with client(head) as ours:
        yield ours


@pytest.mark.parametrize(
    ("path", "body", "says"),
    [
        ("/v1/completions", {"prompt": "x", "tools": [{}]}, "`tools` is not supported"),
        ("/v1/completions", {"prompt": "x", "n": 5}, "`n` must be 1 to 4"),
        ("/v1/completions", {"prompt": "x", "n": 0}, "`n` must be 1 to 4"),
        ("/v1/completions", {"prompt": ["x"] * 257}, "too many"),
        ("/v1/completions", {"prompt": []}, "must not be empty"),
        ("/v1/chat/completions", {"messages": [], "top_logprobs": 2}, "requires logprobs"),
        ("/v1/completions", {"prompt": "x", "grammar": "root ::= x"}, "rammar"),
        ("/v1/completions", {"prompt": "x", "json_schema": {"type": "nonsense"}}, "chema"),
        ("/v1/completions", {"prompt": "x", "response_format": {"type": "json_object"}}, "`response_format`"),
        ("/v1/completions", {"prompt": "x", "temperature": "hot"}, "temperature"),
        ("/v1/completions", {"prompt": "x", "max_tokens": -5}, "max_tokens"),
        ("/v1/completions", {"prompt": "x", "repeat_penalty": 0}, "repeat_penalty"),
        ("/v1/completions", {"prompt": "x", "stop": [7]}, "stop"),
        ("/v1/completions", {"prompt": [10**9]}, "token that does not exist"),
        ("/v1/completions", {"prompt": [-1]}, "token that does not exist"),
        ("/v1/completions", {"prompt": {"text": "x"}}, "list of tokens"),
        ("/v1/completions", {"prompt": ""}, "empty"),
        ("/v1/completions", {}, "prompt"),
        ("/v1/completions", [], "JSON object"),
        ("/v1/chat/completions", {"messages": "hi"}, "array"),
        ("/v1/chat/completions", {"messages": [{"role": "user"}]}, "must contain 'content'"),
        ("/v1/chat/completions", {}, "messages"),
        ("/detokenize", {"tokens": [10**9]}, "does not exist"),
    ],
    ids=str,
)
async def test_what_cannot_be_answered_is_refused_with_a_reason(ours, path, body, says):
    status, answer = await ours.post(path, body)
    assert (status, answer["error"]["code"], answer["error"]["type"]) == (400, 400, "invalid_request_error")
    assert says in answer["error"]["message"]


async def test_only_who_has_the_key_is_answered(ours):
    ours.session.headers.pop("Authorization")
    assert (await ours.post("/v1/completions", {"prompt": "x"}))[0] == 401
    assert (await ours.get("/props"))[0] == 401
    assert await ours.get("/health") == (200, {"status": "ok"})


@pytest.mark.parametrize(
    "fields",
    [
        {"temperature": 1e-300},
        {"temperature": 1e9, "top_k": 0, "top_p": 1, "min_p": 0},
        {"temperature": 0, "dynatemp_range": 1},
        {"temperature": 0.5, "dynatemp_range": 0.5, "dynatemp_exponent": -5},
        {"temperature": 1, "dynatemp_range": 1e9, "dynatemp_exponent": 1e9},
        {"dynatemp_range": -1},
        {"repeat_penalty": 1e9, "repeat_last_n": 2**31 - 1},
        {"repeat_penalty": 1e-6, "frequency_penalty": -1e9, "presence_penalty": 1e9},
        {"logit_bias": {str(token): False for token in range(4000)}},
        {"logit_bias": {"28": 1e308, "29": -1e308}, "temperature": 1e-5},
        {"ignore_eos": True, "logit_bias": {"28": 1e9}, "top_p": 0, "typical_p": 0, "min_p": 1},
        {"top_n_sigma": 0}, {"top_n_sigma": 1e-9}, {"typical_p": -1}, {"typical_p": 1e-9},
        {"xtc_probability": 1, "xtc_threshold": 0, "min_keep": 2**31 - 1},
        {"top_k": 2**31 - 1, "seed": 2**63}, {"top_k": 1, "top_p": 0},
        {"mirostat": 1, "mirostat_tau": 1e9, "mirostat_eta": -1e9}, {"mirostat": 7, "mirostat_tau": -1e9},
        {"mirostat": 1, "temperature": 0, "logit_bias": {"28": 1e9}}, {"mirostat": 2, "mirostat_tau": 0},
        {"dry_multiplier": 1e9, "dry_base": 1e9, "dry_allowed_length": 0, "dry_penalty_last_n": 2**31 - 1},
        {"dry_multiplier": -1e9, "dry_base": 0.5, "dry_sequence_breakers": ["", "é" * 99, "\x00", "日本"]},
        {"samplers": ["adaptive_p"] * 3, "adaptive_target": 1e9, "adaptive_decay": 0.99},
        {"samplers": ["infill", "adaptive_p"], "adaptive_target": 0, "logit_bias": {"28": 1e9}},
        {"samplers": "kkkkk", "top_k": 1, "n_probs": 1000, "post_sampling_probs": True},
        {"n_probs": 5, "post_sampling_probs": True, "temperature": 0, "top_n_sigma": 0},
    ],
    ids=str,
)  # fmt: skip
async def test_numbers_at_the_edge_end_no_engine(ours, fields):
    status, _ = await ours.post("/v1/completions", {"prompt": "x", "max_tokens": 5, **fields})
    assert status in (200, 400)
    assert (await ours.get("/health"))[0] == 200
