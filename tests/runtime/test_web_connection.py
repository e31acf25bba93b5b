"""Clients on raw sockets that end their side, wholly or half, at every moment of a request."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, closing
from dataclasses import dataclass, field

import pytest
from aiohttp import web

from mesh_llm.runtime.listening import LOOPBACK, port_of, reserve
from mesh_llm.runtime.web import serve

POST = b"POST /%s HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n%s"


@dataclass
class Slow:
    """Handlers that wait for the test's word."""

    begun: asyncio.Event = field(default_factory=asyncio.Event)
    go_on: asyncio.Event = field(default_factory=asyncio.Event)
    left: asyncio.Event = field(default_factory=asyncio.Event)
    port: int = 0

    async def _wait(self) -> None:
        self.begun.set()
        try:
            await self.go_on.wait()
        except asyncio.CancelledError:
            self.left.set()
            raise

    async def whole(self, request: web.Request) -> web.StreamResponse:
        try:
            text = await request.text()
        except asyncio.CancelledError:
            self.left.set()
            raise
        await self._wait()
        return web.Response(text=f"you said {text}")

    async def stream(self, request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        await response.write(b"data: one\n\n")
        await self._wait()
        await response.write(b"data: two\n\n")
        return response

    async def silent(self, request: web.Request) -> web.StreamResponse:
        self.begun.set()
        try:
            return web.Response(text=await request.text())
        except asyncio.CancelledError:
            self.left.set()
            raise


@asynccontextmanager
async def slow_server() -> AsyncGenerator[Slow]:
    slow, application = Slow(), web.Application()
    for handler in (slow.whole, slow.stream, slow.silent):
        application.router.add_post(f"/{handler.__name__}", handler)
    listener = reserve(LOOPBACK, 0, "--port")
    listener.listen()
    slow.port = port_of(listener)
    with closing(listener):
        async with asyncio.TaskGroup() as tasks, asyncio.timeout(20):
            server = tasks.create_task(serve(application, listener))
            try:
                yield slow
            finally:
                server.cancel()


def post(path: bytes, body: bytes = b"hello") -> bytes:
    return POST % (path, len(body), body)


async def connect(slow: Slow) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    return await asyncio.open_connection(LOOPBACK, slow.port)


@pytest.mark.parametrize("version", [b"HTTP/1.1", b"HTTP/1.0"])
@pytest.mark.parametrize("path", [b"whole", b"stream"])
@pytest.mark.parametrize("after", ["request", "wait"])
async def test_a_client_that_only_ends_its_side_is_answered(version, path, after):
    async with slow_server() as slow:
        reader, writer = await connect(slow)
        writer.write(post(path).replace(b"HTTP/1.1", version))
        if after == "wait":
            await slow.begun.wait()
        writer.write_eof()
        await slow.begun.wait()
        await _looked_at(reader) if version == b"HTTP/1.1" else None
        slow.go_on.set()
        answer = await reader.read()
        writer.close()
    assert b"200 OK" in answer
    assert answer.endswith(b"you said hello") if path == b"whole" else b"data: two\n\n" in answer
    assert not slow.left.is_set()


async def _looked_at(reader: asyncio.StreamReader) -> None:
    """Until something has come that tells nothing."""
    assert await reader.read(1)


async def test_signs_of_life_leave_the_answer_readable():
    async with slow_server() as slow:
        reader, writer = await connect(slow)
        writer.write(post(b"stream"))
        writer.write_eof()
        await slow.begun.wait()
        await reader.readuntil(b"one\n\n\r\n")
        assert await reader.readexactly(8) == b"3\r\n:\n\n\r\n"
        slow.go_on.set()
        rest = await reader.read()
        writer.close()
    assert rest.replace(b"3\r\n:\n\n\r\n", b"") == b"b\r\ndata: two\n\n\r\n0\r\n\r\n"


async def test_an_answer_that_has_not_begun_is_announced_by_interim_responses():
    async with slow_server() as slow:
        reader, writer = await connect(slow)
        writer.write(post(b"whole"))
        writer.write_eof()
        for _ in range(2):
            assert await reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
        slow.go_on.set()
        assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200 OK")
        writer.close()


@pytest.mark.parametrize("path", [b"whole", b"stream"])
async def test_a_client_that_leaves_cancels_the_handler(path):
    async with slow_server() as slow:
        _, writer = await connect(slow)
        writer.write(post(path))
        await slow.begun.wait()
        writer.close()
        async with asyncio.timeout(2):
            await slow.left.wait()


@pytest.mark.parametrize("sent", [post(b"silent")[:-1], post(b"whole", b"x" * 300_000)[:-10]])
async def test_half_a_body_ends_the_request(sent):
    async with slow_server() as slow:
        reader, writer = await connect(slow)
        writer.write(sent)
        writer.write_eof()
        async with asyncio.timeout(2):
            assert await reader.read() in (b"", b"HTTP/1.1 100 Continue\r\n\r\n")
            await slow.left.wait()
        writer.close()


async def test_a_large_body_and_a_half_close_are_answered():
    async with slow_server() as slow:
        reader, writer = await connect(slow)
        slow.go_on.set()
        writer.write(post(b"whole", b"y" * 500_000))
        writer.write_eof()
        assert (await reader.read()).endswith(b"you said " + b"y" * 500_000)
        writer.close()


@pytest.mark.parametrize("sent", [b"", b"POST /whole HT", b"nonsense\r\n\r\n"])
async def test_what_is_no_request_is_let_go(sent):
    async with slow_server() as slow:
        reader, writer = await connect(slow)
        writer.write(sent)
        writer.write_eof()
        async with asyncio.timeout(2):
            answer = await reader.read()
        writer.close()
    assert not answer or b"400 Bad Request" in answer


async def test_an_idle_connection_that_ends_is_closed():
    async with slow_server() as slow:
        reader, writer = await connect(slow)
        slow.go_on.set()
        for _ in range(2):
            writer.write(post(b"whole"))
            assert (await reader.readuntil(b"you said hello")).startswith(b"HTTP/1.1 200 OK")
        writer.write_eof()
        async with asyncio.timeout(2):
            assert await reader.read() == b""
        writer.close()
