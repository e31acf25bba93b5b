"""Engines that misbehave on purpose: real HTTP servers that break off, hang, or answer nonsense."""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager, closing
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

from mesh_llm.core.limits import REQUEST_BODY_BYTES_MAX
from mesh_llm.core.serving import Endpoint
from mesh_llm.runtime.listening import LOOPBACK, port_of, reserve
from mesh_llm.runtime.web import serve

PATHS = ("/v1/chat/completions", "/v1/completions", "/v1/embeddings", "/v1/rerank")
CHUNK = (
    b'data: {"choices":[{"index":0,"delta":{"content":"word "},"finish_reason":null}],'
    b'"id":"c","created":1,"model":"m","object":"chat.completion.chunk"}\n\n'
)
LAST = (
    b'data: {"choices":[{"index":0,"delta":{},"finish_reason":"stop"}],"id":"c","created":1,"model":"m",'
    b'"object":"chat.completion.chunk","timings":{"cache_n":3,"prompt_n":4,"predicted_n":5}}\n\n'
    b"data: [DONE]\n\n"
)

Behaviour = Callable[[web.Request, web.StreamResponse], Awaitable[None]]


@dataclass
class BrokenEngine:
    behaviour: Behaviour
    endpoint: Endpoint
    bodies: list[Any] = field(default_factory=list)
    headers: list[Any] = field(default_factory=list)
    asked: asyncio.Event = field(default_factory=asyncio.Event)
    left: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when the gateway hung up before the end."""

    async def answer(self, request: web.Request) -> web.StreamResponse:
        self.bodies.append(await request.json())
        self.headers.append(request.headers)
        self.asked.set()
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        try:
            await self.behaviour(request, response)
        except asyncio.CancelledError:
            self.left.set()
            raise
        return response


@asynccontextmanager
async def broken_engine(behaviour: Behaviour) -> AsyncGenerator[BrokenEngine]:
    listener = reserve(LOOPBACK, 0, "--port")
    listener.listen()
    engine = BrokenEngine(behaviour, Endpoint(f"http://{LOOPBACK}:{port_of(listener)}", "k"))
    application = web.Application(client_max_size=REQUEST_BODY_BYTES_MAX)
    for path in PATHS:
        application.router.add_post(path, engine.answer)
    with closing(listener):
        async with asyncio.TaskGroup() as tasks:
            server = tasks.create_task(serve(application, listener))
            try:
                yield engine
            finally:
                server.cancel()


def _cut(request: web.Request) -> None:
    assert request.transport is not None
    request.transport.abort()


async def dies_before_its_head(request: web.Request, response: web.StreamResponse) -> None:
    _cut(request)


async def dies_after_its_head(request: web.Request, response: web.StreamResponse) -> None:
    await response.prepare(request)
    _cut(request)


async def dies_in_mid_stream(request: web.Request, response: web.StreamResponse) -> None:
    await response.prepare(request)
    await response.write(CHUNK)
    assert request.transport is not None
    request.transport.close()


async def ends_without_an_end(request: web.Request, response: web.StreamResponse) -> None:
    await response.prepare(request)
    await response.write(CHUNK)


async def tells_an_error_in_mid_stream(request: web.Request, response: web.StreamResponse) -> None:
    await response.prepare(request)
    await response.write(CHUNK)
    await response.write(b'data: {"error":{"code":500,"message":"the slot burnt","type":"server_error"}}\n\n')


async def hangs(request: web.Request, response: web.StreamResponse) -> None:
    await asyncio.Event().wait()


async def talks_for_ever(request: web.Request, response: web.StreamResponse) -> None:
    await response.prepare(request)
    await response.write(CHUNK)
    await asyncio.Event().wait()


async def floods(request: web.Request, response: web.StreamResponse) -> None:
    await response.prepare(request)
    while True:
        await response.write(CHUNK * 100)


async def ranks(request: web.Request, response: web.StreamResponse) -> None:
    await response.prepare(request)
    await response.write(
        b'{"model":"alias \\"x\\"","usage":{"prompt_tokens":3},"results":[{"model":"kept"}]}'
    )


async def sends_nonsense(request: web.Request, response: web.StreamResponse) -> None:
    await response.prepare(request)
    await response.write(b"data: {not json\n\n")


async def redirects(request: web.Request, response: web.StreamResponse) -> None:
    raise web.HTTPTemporaryRedirect("/v1/completions")


async def answers_well(request: web.Request, response: web.StreamResponse) -> None:
    await response.prepare(request)
    await response.write(CHUNK)
    await response.write(LAST)
