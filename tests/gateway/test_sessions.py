"""Who answers a session where nodes have other experts of one model: one node, as long as it is there."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from mesh_llm.core.ids import NodeId
from mesh_llm.core.offers import CutOffer
from mesh_llm.gateway.tunnel import AnswerHead, encode
from tests.gateway.broken_engine import CHUNK, LAST
from tests.gateway.engine import NAME
from tests.gateway.meshes import (
    FIRST,
    SECOND,
    Asked,
    Node,
    PipeStream,
    a_node,
    an_offer,
    asker,
    read_question,
)
from tests.gateway.test_dispatch import answer_well, break_at_once

SLOTS = 2
SURFACES: dict[str, Callable[[str], dict[str, Any]]] = {
    "/v1/chat/completions": lambda said: {"messages": [{"role": "user", "content": said}]},
    "/v1/completions": lambda said: {"prompt": said},
    "/v1/responses": lambda said: {"input": said},
    "/v1/messages": lambda said: {"messages": [{"role": "user", "content": said}], "max_tokens": 5},
}
NAMES = {
    "/v1/chat/completions": ["session_id", "user", "prompt_cache_key", "safety_identifier"],
    "/v1/completions": ["user"],
    "/v1/responses": ["user", "prompt_cache_key", "safety_identifier"],
    "/v1/messages": ["metadata", "session_id"],
}
NAMED = [(path, field) for path, fields in NAMES.items() for field in fields]


def naming(field: str, name: object) -> dict[str, Any]:
    return {field: {"user_id": name} if field == "metadata" else name}


async def answer_full(stream: PipeStream) -> None:
    """And say that all slots are taken by others too."""
    await read_question(stream)
    await stream.send(encode(AnswerHead(status=200, content_type="text/event-stream", busy=SLOTS + 1)))
    await stream.send(CHUNK)
    await stream.send(LAST)
    await stream.finish()


def with_cut(choice: str, node: NodeId, busy: int = 0, answer: Any = answer_well) -> Node:
    cut = CutOffer("5e2f" * 16, "ab" * 16, choice, 12, 16) if choice else None
    return a_node(node, answer, an_offer(NAME, slots=SLOTS, cut=cut), busy=busy)


async def ask(asked: Asked, path: str, said: str, named: dict[str, Any]) -> NodeId:
    """Who answered."""
    events = await asked.client.stream(path, SURFACES[path](said) | named | {"model": NAME, "stream": True})
    assert events
    return asked.mesh.opened[-1]


@pytest.mark.parametrize(("path", "field"), NAMED)
async def test_a_named_session_stays_with_a_node_on_each_surface(path: str, field: str):
    async with asyncio.timeout(20), asker(with_cut("one", FIRST), with_cut("two", SECOND)) as asked:
        where = {
            str(number): await ask(asked, path, "hi", naming(field, str(number))) for number in range(12)
        }
        assert set(where.values()) == {FIRST, SECOND}
        for number, node in where.items():
            assert await ask(asked, path, f"another question of {number}", naming(field, number)) == node


async def test_without_a_name_a_conversation_stays_with_a_node_while_it_grows():
    path = "/v1/chat/completions"
    async with asyncio.timeout(20), asker(with_cut("one", FIRST), with_cut("two", SECOND)) as asked:
        where = {str(number): await ask(asked, path, str(number), {}) for number in range(12)}
        assert set(where.values()) == {FIRST, SECOND}
        for said, node in where.items():
            turns = [("user", said), ("assistant", "hello"), ("user", "and now?")]
            longer = {"messages": [{"role": role, "content": content} for role, content in turns]}
            assert await ask(asked, path, said, longer) == node


async def test_a_busy_node_keeps_its_sessions_only_where_others_would_answer_differently():
    path, name = "/v1/chat/completions", {"user": "ada"}
    for other, stays in (("two", True), ("one", False)):
        nodes = with_cut("one", FIRST, answer=answer_full), with_cut(other, SECOND, busy=9)
        async with asyncio.timeout(20), asker(*nodes) as asked:
            assert await ask(asked, path, "hi", name) == FIRST
            asked.mesh.nodes[SECOND] = with_cut(other, SECOND)
            assert await ask(asked, path, "and now?", name) == (FIRST if stays else SECOND)


async def test_a_session_moves_when_its_node_goes_and_stays_where_it_went():
    path, name = "/v1/chat/completions", {"session_id": "a"}
    async with asyncio.timeout(20), asker(with_cut("one", FIRST), with_cut("two", SECOND, busy=1)) as asked:
        assert await ask(asked, path, "hi", name) == FIRST
        asked.mesh.unreachable.add(FIRST)  # not known yet: it is found out by asking
        assert await ask(asked, path, "hi", name) == SECOND
        there = asked.mesh.nodes.pop(FIRST)
        assert await ask(asked, path, "hi", name) == SECOND
        asked.mesh.unreachable.clear()
        asked.mesh.nodes[FIRST] = there
        asked.mesh.nodes[SECOND] = with_cut("two", SECOND, busy=1)
        assert await ask(asked, path, "hi", name) == SECOND


async def test_a_session_stays_when_a_node_joins():
    path, name = "/v1/chat/completions", {"session_id": "a"}
    async with asyncio.timeout(20), asker(with_cut("two", SECOND, busy=SLOTS)) as asked:
        assert await ask(asked, path, "hi", name) == SECOND
        asked.mesh.nodes[FIRST] = with_cut("one", FIRST)
        assert await ask(asked, path, "something else", name) == SECOND
        assert await ask(asked, path, "hi", {"session_id": "b"}) == FIRST


async def test_what_names_a_session_goes_to_the_node_that_is_asked_and_nowhere_else():
    secret = "a-private-name"
    nodes = with_cut("one", FIRST), with_cut("two", SECOND, busy=1)
    async with asyncio.timeout(20), asker(*nodes) as asked:
        for named in ({"session_id": secret}, {"user": secret}, {"metadata": {"user_id": secret}}):
            assert await ask(asked, "/v1/chat/completions", "hi", named) == FIRST
        assert secret.encode() in sent_to(asked, FIRST) and not sent_to(asked, SECOND)
        for path in ("/metrics", "/v1/models"):
            async with asked.client.session.get(asked.client.url + path) as response:
                assert response.status == 200 and secret not in await response.text()


def sent_to(asked: Asked, node: NodeId) -> bytes:
    return b"".join(frame for other, mine, _ in asked.mesh.streams if other == node for frame in mine.sent)


@pytest.mark.parametrize("wrong", [7, True, ["ada"], {"id": "ada"}], ids=str)
@pytest.mark.parametrize(("path", "field"), NAMED)
async def test_a_name_that_is_no_string_is_refused_before_anybody_is_asked(
    path: str, field: str, wrong: object
):
    async with asyncio.timeout(20), asker(with_cut("one", FIRST)) as asked:
        status, told = await asked.client.post(path, SURFACES[path]("hi") | naming(field, wrong))
        assert status == 400 and "must be a string" in told["error"]["message"]
        assert asked.mesh.opened == []


async def test_a_node_that_fails_is_not_a_sessions_home():
    path, name = "/v1/chat/completions", {"session_id": "a"}
    failing = with_cut("one", FIRST, answer=break_at_once)
    async with asyncio.timeout(20), asker(failing, with_cut("two", SECOND, busy=1)) as asked:
        assert await ask(asked, path, "hi", name) == SECOND
        assert asked.mesh.opened == [FIRST, SECOND]
        assert await ask(asked, path, "hi", name) == SECOND
        assert asked.mesh.opened == [FIRST, SECOND, SECOND]
