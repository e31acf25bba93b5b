"""A mixture of experts that fits no node: real processes, each with a cut of its own under that name."""

import asyncio
import itertools
import signal
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from tests.experts.english import reads_as_english
from tests.interaction.cut_nodes import (
    CAPS_GB,
    KEPT,
    NAME,
    bytes_between,
    cut_node,
    engine,
    know_the_experts,
    place_of,
    served,
    shelf,
    wait_for_cuts,
)
from tests.interaction.nodes import BOUND_S, Node, chat, chat_until_ready, started
from tests.interaction.test_mesh import NO_RELAY
from tests.tiny_models import write_tiny_model

pytestmark = pytest.mark.real

OTHER = "tiny"
MOVE_SECONDS_MAX = 10.0
"""In which a conversation goes on elsewhere whose node is gone."""

Turn = Callable[[int], dict[str, Any]]
"""What the n-th request of a session says, and by what it is known for the same session."""


def user(text: str) -> dict[str, str]:
    return {"role": "user", "content": text}


def by_session(name: str) -> Turn:
    return lambda number: {"session_id": name, "user": f"{number}", "messages": [user(f"{name}? {number}")]}


def by_user(name: str) -> Turn:
    return lambda number: {"user": name, "messages": [user(f"{name}! {number}")]}


def by_conversation(name: str) -> Turn:
    def turn(number: int) -> dict[str, Any]:
        later = [{"role": "assistant", "content": "Yes."}, user("And then?")]
        return {"messages": [user(f"{name}."), *(later * number)]}

    return turn


KINDS = (by_session, by_user, by_conversation)


async def test_nodes_too_small_for_a_mixture_each_answer_with_their_best_experts(
    moe_model: Path, tmp_path: Path
):
    """Two with cuts, one that serves another model and is asked by clients, later a third with a cut."""
    stores = [shelf(moe_model, tmp_path, number) for number in range(2)]
    await know_the_experts(moe_model, stores)
    write_tiny_model(tmp_path / f"{OTHER}.gguf", "llama")
    async with AsyncExitStack() as stack:
        one = await stack.enter_async_context(cut_node(tmp_path, 0))
        join = ("--join", await one.invite(), *NO_RELAY)
        asked = await stack.enter_async_context(
            started(tmp_path, tmp_path / "asked", "--model", str(tmp_path / f"{OTHER}.gguf"), *join)
        )
        await one.wait_for_message("ranking")
        two = await stack.enter_async_context(cut_node(tmp_path, 1, *join))
        told = await wait_for_cuts(asked, 2)
        assert sorted(cut["experts_kept"] for cut in told.values()) == sorted(KEPT)
        assert {cut["perplexity_ratio"] for cut in told.values()} == {1.25}
        await two.wait_for_message("from node")  # its ranking: nobody measures what another has
        pids = [engine(each).pid for each in (one, two, asked)]

        await each_answers_in_english_and_alone([one, two], asked)
        sessions = await sessions_stay(asked, [one, two])

        (tmp_path / "store2").symlink_to(stores[1])
        late = cut_node(tmp_path, 2, *join, cap_gb=CAPS_GB[1])
        three = await stack.enter_async_context(late)
        for each in (one, two, three, asked):
            await wait_for_cuts(each, 3)
        assert [engine(each).pid for each in (one, two, asked)] == pids

        one.process.send_signal(signal.SIGKILL)
        async with asyncio.timeout(MOVE_SECONDS_MAX):
            for turn in sessions[one]:
                await chat_until_ready(await asked.url(), model=NAME, max_tokens=1, **turn(2))
        for turn in sessions[two]:
            assert await place_of(asked, [two, three], **turn(2)) is two
        assert (await chat(await asked.url(), model=OTHER))[0] == 200
        assert [engine(each).pid for each in (two, asked)] == pids[1:]


async def each_answers_in_english_and_alone(nodes: Sequence[Node], asked: Node) -> None:
    """Not a byte goes between nodes while one answers that was asked itself, gossip apart."""
    everybody = (*nodes, asked)
    for node, cap in zip(nodes, CAPS_GB, strict=True):
        before = [await bytes_between(each) for each in everybody]
        answer = await chat_until_ready(
            await node.url(),
            model=NAME,
            messages=[user("What is the Python programming language?")],
            max_tokens=32,
            temperature=0,
            repeat_penalty=1.3,
        )
        assert answer["usage"]["completion_tokens"] > 16
        assert [await bytes_between(each) for each in everybody] == before
        text = answer["choices"][0]["message"]["content"]
        assert reads_as_english(text), text
        assert engine(node).memory_info().rss < float(cap) * 1e9


async def sessions_stay(asked: Node, nodes: Sequence[Node]) -> dict[Node, list[Turn]]:
    """Of each kind one begins at each node, since the other has no room; all go on there whatever they say
    next, when there is room everywhere."""
    occupant = by_session("first")
    full = await place_of(asked, nodes, **occupant(0))
    found: dict[Node, list[Turn]] = {}
    for node in sorted(nodes, key=lambda each: each is full):
        async with occupied(asked, nodes, occupant):
            found[node] = [await begun_at(node, kind, asked, nodes) for kind in KINDS]
        occupant = found[node][0]
    for kind in range(len(KINDS)):
        for node in (*nodes, *nodes):
            assert await place_of(asked, nodes, **found[node][kind](1)) is node
    return found


async def begun_at(node: Node, kind: Callable[[str], Turn], asked: Node, nodes: Sequence[Node]) -> Turn:
    """Nearly always the first: a node without room may be so much faster that waiting for it is wise."""
    async with asyncio.timeout(BOUND_S):
        for number in itertools.count():
            turn = kind(f"Session {number} of {node.pid}")
            if await place_of(asked, nodes, **turn(0)) is node:
                return turn
    raise AssertionError


@asynccontextmanager
async def occupied(asked: Node, nodes: Sequence[Node], turn: Turn) -> AsyncGenerator[None]:
    """The node of that session writes two long answers, as many as it writes at once."""
    async with answering(asked, turn), answering(asked, turn):
        before = sum([await served(node) for node in nodes])
        yield
        meanwhile = sum([await served(node) for node in nodes]) - before
    async with asyncio.timeout(BOUND_S):
        while sum([await served(node) for node in nodes]) < before + meanwhile + 2:
            pass


@asynccontextmanager
async def answering(asked: Node, turn: Turn) -> AsyncGenerator[None]:
    """From its first token until the client leaves."""
    body = {"model": NAME, "stream": True, "max_tokens": 1500, "ignore_eos": True} | turn(0)
    url = f"{await asked.url()}/v1/chat/completions"
    async with aiohttp.ClientSession() as client, client.post(url, json=body) as answer:
        assert (await answer.content.readline()).startswith(b"data: {")
        yield
