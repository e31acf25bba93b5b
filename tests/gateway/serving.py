"""A gateway on a free port, as a user meets it."""

import asyncio
import random
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager, closing
from typing import Any

import aiohttp

from mesh_llm.gateway.app import Gateway
from mesh_llm.gateway.backend import Backend
from mesh_llm.runtime.clock import Clock
from mesh_llm.runtime.listening import LOOPBACK, port_of, reserve


@asynccontextmanager
async def serving(backends: Sequence[Backend], **settings: Any) -> AsyncGenerator[tuple[Gateway, str]]:
    """The gateway and its base URL."""
    told = {"api_key": None, "clock": Clock(), "chance": random.Random(7)} | settings
    gateway = Gateway(lambda: backends, **told)
    listener = reserve(LOOPBACK, 0, "--port")
    listener.listen()  # clients that come before the server runs wait instead of being refused
    with closing(listener):
        async with asyncio.TaskGroup() as tasks:
            server = tasks.create_task(gateway.run(listener))
            try:
                yield gateway, f"http://127.0.0.1:{port_of(listener)}"
            finally:
                server.cancel()


class Client:
    """A plain HTTP client for what no SDK would send."""

    def __init__(self, url: str, session: aiohttp.ClientSession) -> None:
        self.url = url
        self.port = int(url.rpartition(":")[2])
        self.session = session

    async def post(self, path: str, body: Any, **settings: Any) -> tuple[int, Any]:
        sent = {"data": body} if isinstance(body, bytes) else {"json": body}
        async with self.session.post(self.url + path, **sent, **settings) as response:
            return response.status, await response.json()

    async def get(self, path: str, **settings: Any) -> tuple[int, Any]:
        async with self.session.get(self.url + path, **settings) as response:
            return response.status, await response.json()

    async def stream(self, path: str, body: Any) -> list[bytes]:
        """The data of every event."""
        async with self.session.post(self.url + path, json=body) as response:
            text = await response.read()
            assert response.status == 200, text
        return [line[6:] for line in text.split(b"\n") if line.startswith(b"data: ")]


@asynccontextmanager
async def client_of(backends: Sequence[Backend], **settings: Any) -> AsyncGenerator[Client]:
    async with serving(backends, **settings) as (_, url), aiohttp.ClientSession() as session:
        yield Client(url, session)
