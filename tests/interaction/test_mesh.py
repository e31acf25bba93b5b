"""What is promised of nodes together: one token, and any model answers from any node."""

import asyncio
import json
import signal
from collections import Counter
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from tests.interaction.nodes import BOUND_S, MODEL, Node, chat, chat_until_ready, ended, get, started

pytestmark = pytest.mark.real

OTHER_MODEL = "Gemma-3-270M"
NO_RELAY = ("--mesh-relay", "none")
DEAD_SECONDS_MAX = 10.0
"""In which a dead node is out of everybody's sight."""


async def listed(node: Node) -> dict[str, dict[str, Any]]:
    """`/v1/models` of a node, by name."""
    answer = await get(f"{await node.url()}/v1/models")
    return {model["id"]: model for model in answer["data"]}


async def wait_until_listed(node: Node, *names: str, bound_s: float = BOUND_S) -> None:
    """Until exactly these models are ready there."""
    async with asyncio.timeout(bound_s):
        while True:
            models = await listed(node)
            if {name for name, model in models.items() if model["status"] == "ready"} == set(names):
                return
            await asyncio.sleep(0.05)


async def command(node_home: Path, store: Path, *words: str) -> dict[str, Any]:
    """A command's JSON, asked of the node that runs in the home."""
    status, out, err = await ended(store, node_home, *words, "--json")
    assert status == 0, err
    return json.loads(out)


async def ended_as_client(store: Path, home: Path, *flags: str) -> tuple[int, str, str]:
    """A client that does not get in, or not for long: as `ended`."""
    return await ended(store, home, "--client", *flags, *NO_RELAY, "--port", "0", "--console", "0")


@asynccontextmanager
async def mesh_of_three(store: Path, homes: Path) -> AsyncGenerator[tuple[Node, Node, Node]]:
    """Two servers of different models and a client, as three processes with three homes."""
    async with AsyncExitStack() as stack:
        one = await stack.enter_async_context(started(store, homes / "one", "--model", MODEL, *NO_RELAY))
        join = ("--join", await one.invite(), *NO_RELAY)
        two = await stack.enter_async_context(started(store, homes / "two", "--model", OTHER_MODEL, *join))
        client = await stack.enter_async_context(started(store, homes / "client", "--client", *join))
        yield one, two, client


async def test_three_processes_answer_for_both_models_through_each(store: Path, tmp_path: Path):
    async with mesh_of_three(store, tmp_path) as nodes:
        for node in nodes:
            await wait_until_listed(node, MODEL, OTHER_MODEL)
            for model in (MODEL, OTHER_MODEL):
                body = await chat_until_ready(await node.url(), model=model, temperature=0)
                assert body["model"] == model
                assert body["choices"][0]["message"]["content"].strip()
        models = await listed(nodes[2])
        assert [len(model["served_by"]) for model in models.values()] == [1, 1]
        assert models[MODEL]["served_by"][0]["node"] != models[OTHER_MODEL]["served_by"][0]["node"]


async def test_a_streamed_answer_is_the_same_through_the_mesh(store: Path, tmp_path: Path):
    async with (
        started(store, tmp_path / "server", "--model", MODEL, *NO_RELAY) as server,
        started(store, tmp_path / "client", "--client", "--join", await server.invite(), *NO_RELAY) as client,
    ):
        await wait_until_listed(client, MODEL)
        said = [await stream(await node.url(), temperature=0, max_tokens=24) for node in (server, client)]
        assert said[0] == said[1] and len(said[0]) > 10


async def stream(url: str, **fields: Any) -> str:
    """The text of a streamed answer; raises where it does not end as it should."""
    body = {"messages": [{"role": "user", "content": "Tell a story."}], "stream": True} | fields
    text, done = "", False
    async with (
        aiohttp.ClientSession() as session,
        session.post(f"{url}/v1/chat/completions", json=body) as answer,
    ):
        assert answer.status == 200, await answer.text()
        async for line in answer.content:
            data = line.removeprefix(b"data: ").strip()
            if data == b"[DONE]":
                done = True
            elif data:
                chunk = json.loads(data)
                if "error" in chunk:
                    raise BrokenOff(text, chunk["error"]["message"])
                text += chunk["choices"][0]["delta"].get("content") or "" if chunk["choices"] else ""
    assert done, "a stream that ends without [DONE] or an error is a silent stop"
    return text


class BrokenOff(Exception):
    """An answer that ended with an error of which the client was told."""


async def test_killing_one_of_two_servers_costs_no_request_that_had_no_byte_yet(store: Path, tmp_path: Path):
    async with AsyncExitStack() as stack:
        flags = ("--model", MODEL, "--ctx-size", "2048", *NO_RELAY)
        one = await stack.enter_async_context(started(store, tmp_path / "one", *flags))
        join = ("--join", await one.invite())
        two = await stack.enter_async_context(started(store, tmp_path / "two", *flags, *join))
        client = await stack.enter_async_context(
            started(store, tmp_path / "client", "--client", *join, *NO_RELAY)
        )
        await wait_until_served_by(client, 2)
        outcomes = await ask_while_one_dies(await client.url(), two)
        assert outcomes["refused"] == 0, outcomes
        assert outcomes["whole"] > 0 and sum(outcomes.values()) == 50
        await wait_until_served_by(client, 1, bound_s=DEAD_SECONDS_MAX)
        assert (await chat(await client.url(), model=MODEL))[0] == 200


async def wait_until_served_by(node: Node, count: int, bound_s: float = BOUND_S) -> None:
    async with asyncio.timeout(bound_s):
        while True:
            served_by = (await listed(node)).get(MODEL, {"served_by": []})["served_by"]
            if [server["status"] for server in served_by] == ["ready"] * count:
                return
            await asyncio.sleep(0.05)


async def ask_while_one_dies(url: str, victim: Node) -> Counter[str]:
    """Fifty short requests at once; the victim is killed when the first answers have come in."""
    outcomes: Counter[str] = Counter()
    some_in = asyncio.Event()

    async def ask() -> None:
        try:
            await stream(url, model=MODEL, max_tokens=16)
            outcomes["whole"] += 1
        except BrokenOff:
            outcomes["told"] += 1  # it had its first byte
        except AssertionError:
            outcomes["refused"] += 1
        if outcomes["whole"] >= 5:
            some_in.set()

    async def kill() -> None:
        await some_in.wait()
        victim.process.send_signal(signal.SIGKILL)

    async with asyncio.timeout(BOUND_S), asyncio.TaskGroup() as tasks:
        tasks.create_task(kill())
        for _ in range(50):
            tasks.create_task(ask())
    return outcomes


async def test_a_node_that_rejoins_after_a_restart_needs_no_token(store: Path, tmp_path: Path):
    async with started(store, tmp_path / "server", "--model", MODEL, *NO_RELAY) as server:
        await wait_for_node(tmp_path / "server", store)
        token = (await command(tmp_path / "server", store, "invite", "--once"))["token"]
        client_home = tmp_path / "client"
        async with started(store, client_home, "--client", "--join", token, *NO_RELAY) as client:
            await wait_until_listed(client, MODEL)
            assert await client.stop() == 0
        for again in ((), ("--join", token)):
            async with started(store, client_home, "--client", *again, *NO_RELAY) as client:
                await wait_until_listed(client, MODEL)
        status, _, err = await ended_as_client(store, tmp_path / "stranger", "--join", token)
        assert status == 14 and "another one has used it" in err
        assert (await server.stop()) == 0


async def test_a_kicked_node_is_refused_by_all_members(store: Path, tmp_path: Path):
    async with mesh_of_three(store, tmp_path) as (one, two, client):
        for node in (one, two, client):
            await wait_until_listed(node, MODEL, OTHER_MODEL)
        theirs = (await command(tmp_path / "two", store, "status"))["node_id"]
        status, _, err = await ended(store, tmp_path / "client", "kick", theirs[:12])
        assert status == 0, err
        for node in (one, client):
            await wait_until_listed(node, MODEL, bound_s=5.0)
        await wait_until_listed(two, OTHER_MODEL, bound_s=5.0)
        await two.stop()
        status, _, err = await ended_as_client(store, tmp_path / "two")
        assert status == 16, err


async def test_a_revoked_invite_lets_nobody_in(store: Path, tmp_path: Path):
    async with started(store, tmp_path / "server", "--model", MODEL, *NO_RELAY):
        home = tmp_path / "server"
        await wait_for_node(home, store)
        token = (await command(home, store, "invite"))["token"]
        status, _, err = await ended(store, home, "invite", "revoke", token)
        assert status == 0, err
        status, _, err = await ended_as_client(store, tmp_path / "stranger", "--join", token)
        assert status == 15 and "revoked" in err


async def wait_for_node(home: Path, store: Path) -> None:
    async with asyncio.timeout(BOUND_S):
        while True:
            if (await ended(store, home, "status", "--json"))[0] == 0:
                return


async def test_a_dropped_model_is_gone_and_the_node_goes_on(store: Path, tmp_path: Path):
    async with mesh_of_three(store, tmp_path) as (one, _, client):
        await wait_until_listed(client, MODEL, OTHER_MODEL)
        status, _, err = await ended(store, tmp_path / "one", "drop", MODEL)
        assert status == 0, err
        await wait_until_listed(client, OTHER_MODEL)
        assert (await chat(await one.url(), model=OTHER_MODEL))[0] == 200
        status, body = await chat(await one.url(), model=MODEL)
        assert status == 404 and OTHER_MODEL in body["error"]["message"]


async def wait_until_busy(node: Node) -> None:
    async with asyncio.timeout(BOUND_S):
        while True:
            if (await get(f"{await node.console_url()}/api/status"))["inflight_requests"]:
                return
            await asyncio.sleep(0.05)


async def test_a_stopping_server_lets_its_answers_end_and_is_gone_from_the_lists(store: Path, tmp_path: Path):
    async with mesh_of_three(store, tmp_path) as (one, _, client):
        await wait_until_listed(client, MODEL, OTHER_MODEL)
        async with asyncio.TaskGroup() as tasks:
            answer = tasks.create_task(
                stream(await client.url(), model=MODEL, max_tokens=200, ignore_eos=True, temperature=0)
            )
            await wait_until_busy(one)
            one.process.send_signal(signal.SIGINT)
            await one.wait_for_message("still being answered")
        assert len(answer.result()) > 100
        assert await one.wait_for_end() == 0
        await wait_until_listed(client, OTHER_MODEL, bound_s=2.0)
