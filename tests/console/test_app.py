import asyncio
import json
from contextlib import asynccontextmanager

import aiohttp
import pytest

from mesh_llm.console.app import Console
from mesh_llm.console.control import Control
from mesh_llm.console.snapshot import MeshStatus, ModelStatus, Snapshot
from mesh_llm.core.ids import NodeId
from mesh_llm.core.machine import Machine
from mesh_llm.core.serving import Loading
from mesh_llm.runtime.bell import Bell
from mesh_llm.runtime.listening import LOOPBACK, port_of, reserve
from mesh_llm.runtime.tasks import beside
from tests.engine.served_model_for_tests import served


class Node:
    """Something to look at."""

    def __init__(self) -> None:
        self.changes = Bell()
        self.loaded = 0.0

    def snapshot(self) -> Snapshot:
        model = ModelStatus(served(), Loading(self.loaded))
        mesh = MeshStatus(NodeId("a" * 64), "desk", None, is_client=False, token="mesh1secret", peers=())
        return Snapshot("1.2.3", 9337, Machine(2, 8, 4, ()), 6, (model,), (), 0, 0, mesh)


class NoVerbs:
    """Nothing that these tests would ask for."""

    async def invite(self, *, once: bool, ttl_s: int | None) -> str:
        raise AssertionError

    async def revoke(self, text: str) -> None:
        raise AssertionError

    async def kick(self, text: str) -> str:
        raise AssertionError

    async def drop(self, model: str) -> str:
        raise AssertionError


@asynccontextmanager
async def console_of(node: Node, control: Control | None = None):
    listener = reserve(LOOPBACK, 0, "--console")
    listener.listen()  # now, so that a request waits for the server instead of being refused
    base = f"http://127.0.0.1:{port_of(listener)}"
    console = Console(node.snapshot, node.changes, control)
    async with (
        beside(console=console.run(listener)),
        asyncio.timeout(30),
        aiohttp.ClientSession(base) as client,
    ):
        yield client


async def next_status(response: aiohttp.ClientResponse) -> dict:
    while not (line := await response.content.readline()).startswith(b"data: "):
        assert line
    return json.loads(line.removeprefix(b"data: "))


async def test_the_status_is_told():
    async with console_of(Node()) as client, client.get("/api/status") as response:
        assert response.status == 200
        assert (await response.json())["node_status"] == "Loading"


async def test_events_give_the_status_at_once_and_at_each_change():
    node = Node()
    async with console_of(node) as client, client.get("/api/events") as response:
        assert (await next_status(response))["models"][0]["loaded"] == 0.0
        node.loaded = 0.5
        node.changes.ring()
        assert (await next_status(response))["models"][0]["loaded"] == 0.5


async def test_a_ring_without_a_change_is_not_told():
    node = Node()
    async with console_of(node) as client, client.get("/api/events") as response:
        await next_status(response)
        node.changes.ring()
        await asyncio.sleep(0)
        node.loaded = 1.0
        node.changes.ring()
        assert (await next_status(response))["models"][0]["loaded"] == 1.0


async def test_the_page_is_served():
    async with console_of(Node()) as client, client.get("/") as response:
        assert response.content_type == "text/html"
        assert "EventSource" in await response.text()


@pytest.mark.parametrize("headers", [{"Origin": "https://evil.example"}, {"Host": "evil.example:3131"}])
async def test_pages_of_other_sites_see_nothing(headers):
    async with console_of(Node()) as client, client.get("/api/status", headers=headers) as response:
        assert response.status == 403


async def test_a_page_of_this_machine_may_look():
    headers = {"Origin": "http://localhost:5173", "Host": "localhost:3131"}
    async with console_of(Node()) as client, client.get("/api/status", headers=headers) as response:
        assert response.status == 200


@pytest.mark.parametrize(("path", "status"), [("/api/status", 405), ("/api/drop", 404)])
async def test_without_verbs_nothing_can_be_changed(path: str, status: int):
    async with console_of(Node()) as client, client.post(path) as response:
        assert response.status == status


@pytest.mark.parametrize(
    ("headers", "token"),
    [({"Authorization": "Bearer key"}, "mesh1secret"), ({"Authorization": "Bearer kez"}, None), ({}, None)],
)
async def test_an_invite_is_shown_only_to_who_holds_the_control_key(headers, token: str | None):
    node = Node()
    async with (
        console_of(node, Control(NoVerbs(), "key")) as client,
        client.get("/api/status", headers=headers) as response,
    ):
        assert (await response.json())["token"] == token
        async with client.get("/api/events", headers=headers) as events:
            assert (await next_status(events))["token"] is None
