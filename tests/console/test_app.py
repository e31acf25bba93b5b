import asyncio
import json
from contextlib import asynccontextmanager

import aiohttp
import pytest

from mesh_llm.console.app import Console
from mesh_llm.console.snapshot import ModelStatus, Snapshot
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
        return Snapshot("1.2.3", 9337, Machine(2, 8, 4, ()), 6, (model,), (), 0, 0)


@asynccontextmanager
async def console_of(node: Node):
    listener = reserve(LOOPBACK, 0, "--console")
    listener.listen()  # now, so that a request waits for the server instead of being refused
    base = f"http://127.0.0.1:{port_of(listener)}"
    console = Console(node.snapshot, node.changes)
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


async def test_nothing_can_be_changed():
    async with console_of(Node()) as client, client.post("/api/status") as response:
        assert response.status == 405
