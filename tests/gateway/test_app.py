"""The front door over real HTTP: routes, keys, pages, metrics."""

import aiohttp
import pytest

from mesh_llm.core.serving import Endpoint, Failed, Loading, Ready
from tests.gateway.broken_engine import answers_well, broken_engine
from tests.gateway.engine import FixedBackend, a_backend, a_model
from tests.gateway.serving import client_of, serving

NOWHERE = Ready(Endpoint("http://127.0.0.1:9", "k"))
CHAT = {"messages": [{"role": "user", "content": "hi"}]}
LOADING = FixedBackend(a_model("one"), Loading(0.25))
FAILED = FixedBackend(a_model("two", pooling="mean"), Failed("too big"))
READY = FixedBackend(a_model("three", vision=True), NOWHERE)


async def test_models_tell_how_they_are_doing():
    async with client_of([LOADING, FAILED, READY]) as client:
        _, listing = await client.get("/v1/models")
        _, one = await client.get("/v1/models/ONE")
        status, unknown = await client.get("/v1/models/org/four")
    rows = {row["id"]: row for row in listing["data"]}
    assert (rows["one"]["status"], rows["one"]["progress"]) == ("loading", 0.25)
    assert (rows["two"]["status"], rows["two"]["reason"]) == ("failed", "too big")
    assert rows["two"]["capabilities"] == ["embeddings"]
    assert "vision" in rows["three"]["capabilities"]
    assert rows["three"]["size"] == 98_362_432
    assert one["id"] == "one"
    assert status == 404 and "one, three, two" in unknown["error"]["message"]


@pytest.mark.parametrize(
    ("backends", "status", "word"),
    [
        ([READY, LOADING], 200, "ok"),
        ([LOADING, FAILED], 503, "loading"),
        ([FAILED], 200, "failed"),
        ([], 200, "ok"),
    ],
)
async def test_health_tells_whether_anything_can_be_asked(backends, status, word):
    async with client_of(backends, api_key="s3") as client:
        assert await client.get("/health") == (status, {"status": word})


async def test_an_unknown_path_and_a_wrong_method_are_answered_in_json():
    async with client_of([]) as client:
        status, answer = await client.get("/v2/nothing")
        assert (status, answer["error"]["code"]) == (404, "not_found")
        status, answer = await client.get("/v1/chat/completions")
        assert (status, answer["error"]["code"]) == (405, "method_not_allowed")
        assert "POST" in answer["error"]["message"]
        status, answer = await client.post("/v1/messages/batches", {})
        assert (status, answer["error"]["type"]) == (404, "not_found_error")


@pytest.mark.parametrize(
    "path", ["/slots", "/props", "/lora-adapters", "/v1/streams/lookup", "/completion", "/infill"]
)
async def test_the_engines_own_routes_are_not_reachable(path, client):
    for method in (client.get, lambda path: client.post(path, {})):
        status, _ = await method(path)
        assert status == 404


async def test_everything_but_health_needs_the_key():
    async with client_of([READY], api_key="s3") as client:
        for path in ("/v1/models", "/metrics", "/nothing"):
            status, answer = await client.get(path)
            assert (status, answer["error"]["code"]) == (401, "invalid_api_key")
        for path in ("/v1/chat/completions", "/tokenize", "/v1/messages"):
            assert (await client.post(path, {}))[0] == 401
        assert (await client.get("/v1/models", headers={"Authorization": "Bearer s3"}))[0] == 200
        assert (await client.get("/v1/models", headers={"x-api-key": "s3"}))[0] == 200


async def test_a_page_on_this_machine_may_ask_and_others_may_not():
    async with client_of([READY]) as client:
        local = {"Origin": "http://localhost:3000"}
        async with client.session.get(f"{client.url}/v1/models", headers=local) as response:
            assert response.headers["Access-Control-Allow-Origin"] == "http://localhost:3000"
        status, answer = await client.get("/v1/models", headers={"Origin": "http://evil.example"})
        assert (status, answer["error"]["code"]) == (403, "origin_refused")
        status, answer = await client.get("/v1/models", headers={"Host": "evil.example"})
        assert (status, answer["error"]["code"]) == (403, "host_refused")


async def test_a_browser_may_ask_first_without_a_key():
    asks = {
        "Origin": "http://localhost:3000",
        "Access-Control-Request-Method": "POST",
        "Access-Control-Request-Headers": "authorization,content-type",
    }
    async with client_of([READY], api_key="s3") as client:
        async with client.session.options(f"{client.url}/v1/chat/completions", headers=asks) as response:
            assert response.status == 204
            assert response.headers["Access-Control-Allow-Headers"] == "authorization,content-type"
            assert response.headers["Access-Control-Allow-Origin"] == "http://localhost:3000"
        stranger = asks | {"Origin": "http://evil.example"}
        async with client.session.options(f"{client.url}/v1/chat/completions", headers=stranger) as response:
            assert response.status == 403
            assert "Access-Control-Allow-Origin" not in response.headers


async def test_errors_too_can_be_read_by_a_local_page():
    async with client_of([]) as client:
        headers = {"Origin": "http://localhost:3000"}
        async with client.session.get(f"{client.url}/v1/models/x", headers=headers) as response:
            assert response.status == 404
            assert response.headers["Access-Control-Allow-Origin"] == "http://localhost:3000"


async def test_metrics_count_requests_and_tokens_per_model():
    async with broken_engine(answers_well) as engine, client_of([a_backend(engine.endpoint)]) as client:
        await client.post("/v1/chat/completions", CHAT)
        await client.stream("/v1/chat/completions", CHAT | {"stream": True})
        await client.get("/invented/path")
        async with client.session.get(f"{client.url}/metrics") as response:
            text = await response.text()
    labels = 'endpoint="/v1/chat/completions",model="SmolLM2-135M-Instruct"'
    assert f'mesh_llm_requests_total{{{labels},status="200"}} 2.0' in text
    assert 'mesh_llm_requests_total{endpoint="other",model="",status="404"} 1.0' in text
    assert 'mesh_llm_completion_tokens_total{model="SmolLM2-135M-Instruct"} 5.0' in text
    assert f"mesh_llm_first_token_seconds_count{{{labels}}} 2.0" in text
    assert f"mesh_llm_request_seconds_count{{{labels}}} 2.0" in text
    assert 'mesh_llm_requests_queued{model="SmolLM2-135M-Instruct"} 0.0' in text


async def test_metrics_tell_the_bytes_between_nodes_by_what_they_are_for():
    class Others:
        def servers(self):
            return ()

        def traffic(self):
            return {"tunnel": (7, 0)}

    async with (
        client_of([], mesh=Others()) as client,
        client.session.get(f"{client.url}/metrics") as response,
    ):
        text = await response.text()
    assert 'mesh_llm_mesh_bytes_total{direction="sent",kind="tunnel"} 7.0' in text
    assert 'mesh_llm_mesh_bytes_total{direction="received",kind="tunnel"} 0.0' in text


async def test_a_change_is_told_and_can_be_looked_up():
    calls = []
    async with (
        broken_engine(answers_well) as engine,
        serving([a_backend(engine.endpoint)], on_change=lambda: calls.append(1)) as (gateway, url),
        aiohttp.ClientSession() as session,
        session.post(f"{url}/v1/chat/completions", json=CHAT) as response,
    ):
        assert response.status == 200
    assert len(calls) >= 2
    statistics = gateway.statistics()
    assert (statistics.requests, statistics.in_flight, statistics.queued) == (1, 0, 0)
    assert statistics.models[0].requests == 1


async def test_a_model_that_is_still_being_fetched_is_said_to_come():
    async with client_of([], fetching=lambda: ("Qwen3-8B",)) as client:
        status, body = await client.post("/v1/chat/completions", {"model": "Qwen3-8B", "messages": []})
        assert status == 503 and "still fetching Qwen3-8B" in body["error"]["message"]
        assert (await client.get("/health"))[0] == 503
