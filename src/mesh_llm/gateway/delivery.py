"""The answer of an engine on its way to one client: sent as it comes, or folded and sent whole.

Until the first byte every failure is an error with a status; after it, an event that ends the stream.
"""

import asyncio
from contextlib import aclosing

from aiohttp import web

from mesh_llm.core.errors import EngineFailed, MeshError
from mesh_llm.gateway.backend import Backend
from mesh_llm.gateway.exchange import Exchange
from mesh_llm.gateway.json_values import dump
from mesh_llm.gateway.metrics import RequestRecord
from mesh_llm.gateway.translation import Mended, Untouched
from mesh_llm.gateway.upstream import UpstreamAnswer, UpstreamLost
from mesh_llm.runtime.clock import Clock

CLIENT_LEFT = 499
"""As nginx counts it."""

STALL_SECONDS_MAX = 60.0
"""A client that takes nothing for this long is given up, or it would keep its place for ever."""

SMALL_WRITE_BYTES = 32 * 1024
"""Fits into an empty socket buffer, so that writing it cannot wait."""

EVENT_STREAM = {"Content-Type": "text/event-stream", "Cache-Control": "no-cache", "X-Accel-Buffering": "no"}


class Delivery:
    def __init__(
        self,
        request: web.Request,
        record: RequestRecord,
        exchange: Exchange,
        backend: Backend,
        clock: Clock,
        stall_seconds_max: float,
    ) -> None:
        self._request = request
        self._record = record
        self._exchange = exchange
        self._backend = backend
        self._clock = clock
        self._stall_seconds_max = stall_seconds_max
        self._translation = Untouched(exchange) if exchange.untouched else Mended(exchange)
        self._response: web.StreamResponse | None = None

    async def deliver(self, answer: UpstreamAnswer) -> web.StreamResponse:
        """Raises MeshError or UpstreamLost where the client has seen nothing yet."""
        try:
            await self._deliver(answer)
        except ConnectionResetError:
            self._record.status = CLIENT_LEFT
        if self._response is None:
            return web.json_response(body=dump(self._exchange.writer.answer()))
        return self._response

    async def _deliver(self, answer: UpstreamAnswer) -> None:
        try:
            await self._pass_on(answer)
        except (MeshError, UpstreamLost) as broken:
            if self._response is None:
                raise
            error = broken if isinstance(broken, MeshError) else await explained(self._backend, broken)
            self._record.status = error.http_status
            await self._send(self._exchange.writer.failure(error))

    async def _pass_on(self, answer: UpstreamAnswer) -> None:
        translation = self._translation
        async with aclosing(answer.chunks()) as chunks:
            async for chunk in chunks:
                if self._record.first_token is None:
                    await self._begin()
                await self._send(translation.feed(chunk))
        if not translation.ended:
            raise UpstreamLost("its answer has no end")
        last = translation.finish()
        if translation.told is not None:
            self._record.status = translation.told.http_status
        await self._send(last)

    async def _begin(self) -> None:
        self._record.first_token = self._clock.monotonic()
        if self._exchange.stream:
            self._response = web.StreamResponse(headers=EVENT_STREAM)
            await self._response.prepare(self._request)

    async def _send(self, out: bytes) -> None:
        """Raises ConnectionResetError for a client that is gone, or as good as gone."""
        response, transport = self._response, self._request.transport
        if response is None or not out:
            return
        if transport is None or (transport.get_write_buffer_size() == 0 and len(out) <= SMALL_WRITE_BYTES):
            await response.write(out)
            return
        try:
            async with asyncio.timeout(self._stall_seconds_max):
                await response.write(out)
        except TimeoutError:
            transport.abort()
            raise ConnectionResetError("the client takes nothing") from None


async def explained(backend: Backend, lost: UpstreamLost) -> EngineFailed:
    reason = await backend.explain_failure() or str(lost) or "it gave no reason"
    return EngineFailed(f"The engine of {backend.model.name} broke off: {reason}")
