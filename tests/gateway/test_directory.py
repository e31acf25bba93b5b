"""What `/v1/models` and the advert tell, over gateways that are joined."""

import asyncio

import aiohttp

from mesh_llm.core.offers import ModelOffer, ServedOffer
from mesh_llm.core.serving import Endpoint, Loading, Ready
from tests.gateway.broken_engine import CHUNK, LAST, broken_engine, hangs
from tests.gateway.engine import NAME, FixedBackend, a_backend, a_model
from tests.gateway.meshes import FIRST, SECOND, Node, PipeStream, a_node, an_offer, asker
from tests.gateway.serving import serving

READY = Ready(Endpoint("http://127.0.0.1:9", "k"))


async def nobody(stream: PipeStream) -> None:
    raise AssertionError("nobody asks it")


async def test_models_of_all_nodes_are_listed_once_with_everybody_who_serves_them():
    here = [FixedBackend(a_model("both"), Loading(0.25)), FixedBackend(a_model("only here"), READY)]
    nodes = [
        a_node(FIRST, nobody, an_offer("both", speed=42.0, parameters=7, capabilities=("chat",)), busy=3),
        a_node(SECOND, nobody, an_offer("both", ready=False), an_offer("far"), name="desk"),
    ]
    async with asker(*nodes, backends=here) as asked:
        _, listing = await asked.client.get("/v1/models")
        _, one = await asked.client.get("/v1/models/FAR")
        status, unknown = await asked.client.get("/v1/models/none")
        _, automatic = await asked.client.get("/v1/models/auto")
    rows = {row["id"]: row for row in listing["data"]}
    assert list(rows) == ["both", "only here", "far"]
    both = rows["both"]
    assert (both["status"], both["parameters"], both["capabilities"]) == ("ready", 7, ["chat"])
    assert both["served_by"] == [
        {"node": "here", "name": "this node", "status": "loading", "tokens_per_second": 0.0, "busy": 0},
        {"node": "1" * 10, "name": "node 1", "status": "ready", "tokens_per_second": 42.0, "busy": 3},
        {"node": "2" * 10, "name": "desk", "status": "loading", "tokens_per_second": 0.0, "busy": 0},
    ]
    assert rows["only here"]["status"] == "ready"
    assert one == rows["far"]
    assert status == 404 and "both, far, only here" in unknown["error"]["message"]
    assert automatic["id"] == "only here"


async def test_a_model_that_loads_everywhere_shows_how_far_it_is_here():
    nodes = [a_node(FIRST, nobody, an_offer("m", ready=False))]
    async with asker(*nodes, backends=[FixedBackend(a_model("m"), Loading(0.25))]) as asked:
        _, one = await asked.client.get("/v1/models/m")
        status, health = await asked.client.get("/health")
    assert (one["status"], one["progress"]) == ("loading", 0.25)
    assert (status, health) == (503, {"status": "loading"})


async def test_a_node_that_serves_nothing_itself_lists_what_others_do():
    async with asker(a_node(FIRST, nobody, an_offer("far"))) as asked:
        _, listing = await asked.client.get("/v1/models")
        assert await asked.client.get("/health") == (200, {"status": "ok"})
        asked.mesh.nodes.clear()
        assert await asked.client.get("/v1/models") == (200, {"object": "list", "data": []})
        status, answer = await asked.client.post("/v1/chat/completions", {})
    assert [row["id"] for row in listing["data"]] == ["far"]
    assert status == 404 and "mesh-llm --model" in answer["error"]["message"]


async def test_an_older_peer_that_says_little_is_listed_and_asked():
    old = Node(FIRST, "", nobody, lambda: [ServedOffer(ModelOffer("m"), ready=True)])
    async with asker(old) as asked:
        _, one = await asked.client.get("/v1/models/m")
    assert (one["size"], one["capabilities"]) == (0, ["chat", "completions"])


async def test_an_advert_tells_what_is_served_here_how_it_does_and_how_fast_it_was():
    times = iter(range(1000))

    class Ticking:
        def monotonic(self) -> float:
            return float(next(times))

        def epoch(self) -> float:
            return 0.0

    async def talks(request, response) -> None:
        await response.prepare(request)
        await response.write(CHUNK)
        await response.write(LAST.replace(b'"predicted_n":5', b'"predicted_n":41'))

    async with (
        broken_engine(talks) as engine,
        serving(
            [a_backend(engine.endpoint), FixedBackend(a_model("slow"), Loading(0.1))], clock=Ticking()
        ) as (gateway, url),
        aiohttp.ClientSession() as session,
    ):
        loaded, loading = gateway.offers()
        assert (loaded.ready, loaded.tokens_per_second, loading.ready) == (True, 0.0, False)
        assert loaded.offer.name == NAME and loaded.offer.parameters == 134_515_008
        assert loaded.offer.capabilities == ("chat", "completions", "tools", "embeddings")
        body = {"messages": [{"role": "user", "content": "hi"}], "stream": True}
        async with session.post(f"{url}/v1/chat/completions", json=body) as response:
            await response.read()
        assert gateway.offers()[0].tokens_per_second == 40.0


async def test_two_servers_of_one_name_behind_one_node_share_the_work():
    async with broken_engine(hangs) as one, broken_engine(hangs) as two:
        backends = [a_backend(one.endpoint, slots=1), a_backend(two.endpoint, slots=1)]
        async with asker(backends=backends) as asked:
            _, listing = await asked.client.get("/v1/models")
            assert len(listing["data"]) == 1 and len(listing["data"][0]["served_by"]) == 2
            async with asyncio.TaskGroup() as tasks, asyncio.timeout(5):
                chat = {"messages": [{"role": "user", "content": "hi"}]}
                requests: list[asyncio.Task[object]] = []
                for asked_already in (1, 2):
                    requests.append(tasks.create_task(asked.client.post("/v1/chat/completions", chat)))
                    while len(one.bodies) + len(two.bodies) < asked_already:  # noqa: ASYNC110
                        await asyncio.sleep(0)
                assert len(one.bodies) == len(two.bodies) == 1
                assert asked.gateway.busy() == 2
                assert [row.in_flight for row in asked.gateway.statistics().models] == [2]
                for request in requests:
                    request.cancel()
