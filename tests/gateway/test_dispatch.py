"""Whom a client's question reaches, and what the client sees when servers fail at every moment."""

import asyncio
import json
from collections.abc import Callable
from typing import Any

import pytest

from mesh_llm.core.serving import Failed, Loading
from mesh_llm.gateway.tunnel import AnswerHead, encode
from mesh_llm.mesh.transport import PeerError, Refused, Unreachable
from tests.gateway.broken_engine import (
    CHUNK,
    LAST,
    answers_well,
    broken_engine,
    dies_after_its_head,
    dies_before_its_head,
    dies_in_mid_stream,
    hangs,
    talks_for_ever,
)
from tests.gateway.engine import NAME, FixedBackend, a_backend, a_model
from tests.gateway.meshes import (
    FIRST,
    SECOND,
    Node,
    PipeStream,
    a_node,
    an_offer,
    asker,
    begin_events,
    read_question,
    servers,
)

CHAT: dict[str, Any] = {"messages": [{"role": "user", "content": "hi"}]}
PATH = "/v1/chat/completions"
NOT_FOUND = AnswerHead(status=404, content_type="application/json")
FULL = AnswerHead(status=503, content_type="application/json", retry_after=7)
DEAD = AnswerHead(status=502, content_type="application/json")
ERROR = json.dumps({"error": {"message": "told there"}}).encode()


async def answer_well(stream: PipeStream) -> None:
    await read_question(stream)
    await begin_events(stream)
    await stream.send(CHUNK)
    await stream.send(LAST)
    await stream.finish()


async def break_at_once(stream: PipeStream) -> None:
    raise Unreachable("it died")


async def break_after_the_question(stream: PipeStream) -> None:
    await read_question(stream)


async def break_after_the_head(stream: PipeStream) -> None:
    await read_question(stream)
    await begin_events(stream)


async def end_after_the_head(stream: PipeStream) -> None:
    await break_after_the_head(stream)
    await stream.finish()


async def send_nonsense(stream: PipeStream) -> None:
    await read_question(stream)
    await stream.send(b"nonsense")


async def break_in_half_an_event(stream: PipeStream) -> None:
    await break_after_the_head(stream)
    await stream.send(CHUNK[:20])


def refuse(head: AnswerHead) -> Any:
    async def answer(stream: PipeStream) -> None:
        await read_question(stream)
        await stream.send(encode(head))
        await stream.send(ERROR)
        await stream.finish()

    return answer


async def break_after_a_word(stream: PipeStream) -> None:
    await break_after_the_head(stream)
    await stream.send(CHUNK + CHUNK[:20])


async def until(condition: Callable[[], bool]) -> None:
    while not condition():  # noqa: ASYNC110 - nobody rings where a test looks
        await asyncio.sleep(0)


async def words_of(client: Any, body: Any = CHAT, path: str = PATH) -> list[bytes]:
    return await client.stream(path, body | {"stream": True})


EARLY_FAILURES = [
    break_at_once,
    break_after_the_question,
    break_after_the_head,
    end_after_the_head,
    send_nonsense,
    break_in_half_an_event,
    refuse(FULL),
    refuse(DEAD),
    refuse(NOT_FOUND),
]


@pytest.mark.parametrize("fail", EARLY_FAILURES)
async def test_a_server_that_fails_before_its_first_byte_costs_the_client_nothing(fail):
    """Whichever of the two is tried first; then it pauses, and the other is asked at once."""
    failing = a_node(FIRST, fail, an_offer(NAME, slots=64))
    well = a_node(SECOND, answer_well, an_offer(NAME), busy=3)
    async with asyncio.timeout(10), asker(failing, well) as asked:
        for _ in range(2):
            events = await words_of(asked.client)
            assert [b"word" in events[0], events[-1]] == [True, b"[DONE]"]
    assert asked.mesh.opened == [FIRST, SECOND, SECOND]


@pytest.mark.parametrize("fail", EARLY_FAILURES)
async def test_when_nobody_is_left_the_client_is_told_and_may_come_again(fail):
    async with asyncio.timeout(10), asker(a_node(FIRST, fail, an_offer(NAME))) as asked:
        url = asked.client.url + PATH
        async with asked.client.session.post(url, json=CHAT | {"stream": True}) as response:
            answer = await response.json()
    assert response.status in (404, 502, 503)
    assert answer["error"]["message"].startswith("node 1")
    assert (response.headers.get("Retry-After") is not None) == (response.status == 503)


async def test_a_node_that_breaks_is_doubted_and_one_that_refuses_is_not():
    nodes = a_node(FIRST, break_at_once, an_offer(NAME)), a_node(SECOND, refuse(FULL), an_offer("full"))
    async with asyncio.timeout(10), asker(*nodes) as asked:
        for name in (NAME, "full"):
            assert (await asked.client.post(PATH, CHAT | {"model": name}))[0] == 503
        assert asked.mesh.doubted == [FIRST]


@pytest.mark.parametrize("error", [Unreachable, Refused, PeerError])
async def test_a_node_that_cannot_be_reached_is_passed_over(error):
    class Door(dict[Any, Node]):
        def __getitem__(self, node: Any) -> Node:
            if node == FIRST:
                raise error("no")
            return super().__getitem__(node)

    nodes = a_node(FIRST, answer_well, an_offer(NAME)), a_node(SECOND, answer_well, an_offer(NAME), busy=9)
    async with asyncio.timeout(10), asker(*nodes) as asked:
        asked.mesh.nodes = Door(asked.mesh.nodes)
        assert (await words_of(asked.client))[-1] == b"[DONE]"
        assert asked.mesh.doubted == [FIRST]


@pytest.mark.parametrize(
    ("path", "body", "kind"),
    [
        (PATH, CHAT, "server_error"),
        ("/v1/completions", {"prompt": "x"}, "server_error"),
        ("/v1/messages", CHAT | {"max_tokens": 5}, "overloaded_error"),
    ],
)
async def test_a_stream_that_breaks_after_its_first_byte_ends_with_an_honest_error(path, body, kind):
    failing = a_node(FIRST, break_after_a_word, an_offer(NAME))
    well = a_node(SECOND, answer_well, an_offer(NAME), busy=9)
    async with asyncio.timeout(10), asker(failing, well) as asked:
        first, error = await words_of(asked.client, body, path)
        assert asked.mesh.opened == [FIRST]
    assert first == CHUNK[6:-2]
    assert json.loads(error)["error"]["type"] == kind
    assert "was lost" in json.loads(error)["error"]["message"]


async def test_a_response_that_breaks_off_keeps_its_name_and_its_count():
    async with (
        asyncio.timeout(10),
        broken_engine(talks_for_ever) as engine,
        servers(far=[a_backend(engine.endpoint)]) as nodes,
        asker(*nodes) as asked,
    ):
        url, body = asked.client.url + "/v1/responses", {"input": "hi", "stream": True}
        async with asked.client.session.post(url, json=body) as response:
            text = await response.content.readuntil(b"word")
            asked.mesh.kill(FIRST)
            text += await response.read()
    events = [json.loads(line[6:]) for line in text.split(b"\n") if line.startswith(b"data: ")]
    assert [event["sequence_number"] for event in events] == list(range(len(events)))
    created, failed = events[0]["response"], events[-1]["response"]
    assert [event["type"] for event in events[-2:]] == ["error", "response.failed"]
    assert failed["id"] == created["id"] and failed["status"] == "failed"
    assert "was lost" in failed["error"]["message"]


async def test_a_refusal_of_the_question_is_final_and_comes_as_it_is():
    head = AnswerHead(status=400, content_type="application/json")
    nodes = (
        a_node(FIRST, refuse(head), an_offer(NAME)),
        a_node(SECOND, answer_well, an_offer(NAME), busy=9),
    )
    async with asyncio.timeout(10), asker(*nodes) as asked:
        assert await asked.client.post(PATH, CHAT) == (400, json.loads(ERROR))
        assert asked.mesh.opened == [FIRST]


@pytest.mark.parametrize("dies", [dies_before_its_head, dies_after_its_head])
@pytest.mark.parametrize("stream", [True, False])
async def test_a_local_engine_that_dies_is_replaced_by_another_node(dies, stream):
    well = a_node(SECOND, answer_well, an_offer(NAME))
    async with (
        asyncio.timeout(10),
        broken_engine(dies) as engine,
        asker(well, backends=[a_backend(engine.endpoint)]) as asked,
    ):
        events = await words_of(asked.client)
        assert b"word" in events[0] and events[-1] == b"[DONE]"
        assert asked.mesh.opened == [SECOND]


async def test_a_local_engine_that_dies_after_its_first_byte_is_told():
    well = a_node(SECOND, answer_well, an_offer(NAME))
    async with (
        asyncio.timeout(10),
        broken_engine(dies_in_mid_stream) as engine,
        asker(well, backends=[a_backend(engine.endpoint)]) as asked,
    ):
        events = await words_of(asked.client)
        assert "killed (signal 9)" in json.loads(events[-1])["error"]["message"]
        assert asked.mesh.opened == []
        assert (await words_of(asked.client))[-1] == b"[DONE]"
        assert asked.mesh.opened == [SECOND]  # the engine here pauses


async def test_a_whole_answer_that_breaks_half_way_is_given_by_another():
    async with (
        asyncio.timeout(10),
        broken_engine(dies_in_mid_stream) as one,
        broken_engine(answers_well) as two,
    ):
        local = [a_backend(one.endpoint)]
        async with servers(far=[a_backend(two.endpoint)]) as nodes, asker(*nodes, backends=local) as asked:
            status, answer = await asked.client.post(PATH, CHAT)
    assert (status, answer["choices"][0]["message"]["content"]) == (200, "word ")


async def test_while_a_model_loads_here_others_answer():
    for condition in (Loading(0.5), Failed("no")):
        well = a_node(FIRST, answer_well, an_offer(NAME))
        async with asyncio.timeout(10), asker(well, backends=[FixedBackend(a_model(), condition)]) as asked:
            assert (await words_of(asked.client))[-1] == b"[DONE]"
            assert (await asked.client.get("/health"))[0] == 200


async def test_a_model_that_is_ready_nowhere_says_so():
    async with asker(a_node(FIRST, answer_well, an_offer("far", ready=False))) as asked:
        status, answer = await asked.client.post(PATH, CHAT | {"model": "far"})
        assert status == 503 and "not ready yet" in answer["error"]["message"]
    loading = FixedBackend(a_model("far"), Loading(0.5))
    async with asker(a_node(FIRST, answer_well, an_offer("far", ready=False)), backends=[loading]) as asked:
        status, answer = await asked.client.post(PATH, CHAT | {"model": "far"})
        assert status == 503 and "50%" in answer["error"]["message"]


async def test_a_full_queue_sends_the_rest_elsewhere():
    async with asyncio.timeout(20), broken_engine(hangs) as engine:
        here = a_backend(engine.endpoint, slots=1)
        far = a_node(FIRST, answer_well, an_offer(NAME, slots=1), busy=10_000)
        async with asker(far, backends=[here]) as asked, asyncio.TaskGroup() as tasks:
            waiting = [tasks.create_task(asked.client.post(PATH, CHAT)) for _ in range(65)]
            await until(lambda: asked.gateway.busy() == 65)
            assert (await words_of(asked.client))[-1] == b"[DONE]"
            for request in waiting:
                request.cancel()


async def test_a_conversation_stays_with_the_node_that_began_it():
    nodes = [a_node(node, answer_well, an_offer(NAME)) for node in (FIRST, SECOND)]
    async with asyncio.timeout(10), asker(*nodes) as asked:
        for number in range(8):
            question = {"role": "user", "content": f"question {number}"}
            await words_of(asked.client, {"messages": [question]})
            began = asked.mesh.opened[-1]
            later = [question, {"role": "assistant", "content": "word"}, {"role": "user", "content": "more"}]
            await words_of(asked.client, {"messages": later})
            assert asked.mesh.opened[-1] == began
    assert set(asked.mesh.opened) == {FIRST, SECOND}


async def test_questions_at_once_are_spread_over_the_nodes():
    go_on = asyncio.Event()

    async def wait_and_answer(stream: PipeStream) -> None:
        await read_question(stream)
        await go_on.wait()
        await begin_events(stream)
        await stream.send(LAST)
        await stream.finish()

    nodes = [a_node(node, wait_and_answer, an_offer(NAME)) for node in (FIRST, SECOND)]
    async with asyncio.timeout(10), asker(*nodes) as asked, asyncio.TaskGroup() as tasks:
        for _ in range(10):
            tasks.create_task(words_of(asked.client))
        await until(lambda: len(asked.mesh.opened) == 10)
        go_on.set()
    assert (asked.mesh.opened.count(FIRST), asked.mesh.opened.count(SECOND)) == (5, 5)


async def test_one_connection_asks_several_nodes_one_after_the_other():
    nodes = a_node(FIRST, answer_well, an_offer("one")), a_node(SECOND, answer_well, an_offer("two"))
    async with asyncio.timeout(10), asker(*nodes) as asked:
        for name in ("one", "two", "one"):
            await words_of(asked.client, CHAT | {"model": name})
        assert asked.client.session.connector is not None
        assert asked.mesh.opened == [FIRST, SECOND, FIRST]


@pytest.mark.parametrize("stream", [True, False])
async def test_a_client_that_leaves_frees_the_slot_of_the_other_node(stream):
    async with (
        asyncio.timeout(10),
        broken_engine(hangs) as engine,
        servers(far=[a_backend(engine.endpoint)]) as nodes,
        asker(*nodes) as asked,
    ):
        async with asyncio.TaskGroup() as tasks:
            request = tasks.create_task(asked.client.post(PATH, CHAT | {"stream": stream}))
            await engine.asked.wait()
            request.cancel()
        await engine.left.wait()
        await asked.gateway.wait_idle()


async def test_a_node_that_leaves_relays_its_own_clients_or_still_answers_them():
    async with asyncio.timeout(10), broken_engine(answers_well) as engine:
        far = a_node(FIRST, answer_well, an_offer(NAME), busy=1000)
        async with asker(far, backends=[a_backend(engine.endpoint)]) as asked:
            await words_of(asked.client)
            assert asked.mesh.opened == []
            asked.gateway.drain()
            await words_of(asked.client)
            assert asked.mesh.opened == [FIRST]
            asked.mesh.nodes.clear()
            assert (await words_of(asked.client))[-1] == b"[DONE]"


async def test_two_gateways_answer_everything_that_one_does():
    async with (
        asyncio.timeout(10),
        broken_engine(answers_well) as engine,
        servers(far=[a_backend(engine.endpoint)]) as nodes,
        asker(*nodes) as asked,
    ):
        _, listing = await asked.client.get("/v1/models")
        assert [model["id"] for model in listing["data"]] == [NAME]
        for path, body in (
            (PATH, CHAT),
            ("/v1/completions", {"prompt": "x"}),
            ("/v1/responses", {"input": "x"}),
            ("/v1/messages", CHAT | {"max_tokens": 5}),
        ):
            for model in (NAME, "SMOL", "auto", None):
                status, answer = await asked.client.post(path, body | {"model": model})
                assert (status, answer["model"]) == (200, NAME)
        assert (await asked.client.post(PATH, {"messages": []}))[0] == 400
        status, answer = await asked.client.post(PATH, CHAT | {"model": "gpt-4"})
        assert status == 404 and NAME in answer["error"]["message"]
        rows = asked.gateway.statistics().models
    assert [(row.name, row.in_flight, row.requests) for row in rows] == [(NAME, 0, 17)]
