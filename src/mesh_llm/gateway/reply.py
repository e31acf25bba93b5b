"""Where an answer goes: to an HTTP client here, or through a tunnel (tunnel_server.py) to another node's.

Nothing is sent before the first bytes of the answer itself are there: until then, somebody else may answer.
"""

import asyncio
from dataclasses import dataclass
from typing import Protocol

from aiohttp import web

from mesh_llm.core.errors import MeshError, Unavailable
from mesh_llm.gateway.errors import anthropic_shape, openai_shape
from mesh_llm.gateway.json_values import dump

CLIENT_LEFT = 499
"""As nginx counts it."""

STALL_SECONDS_MAX = 60.0
"""A client that takes nothing for this long is given up, or it would keep its place for ever."""

SMALL_WRITE_BYTES = 32 * 1024
"""Fits into an empty socket buffer, so that writing it cannot wait."""

JSON = "application/json"
EVENTS = "text/event-stream"
EVENT_STREAM = {"Content-Type": EVENTS, "Cache-Control": "no-cache", "X-Accel-Buffering": "no"}


@dataclass(frozen=True, slots=True)
class WholeAnswer:
    """An answer that is sent in one piece."""

    body: bytes
    status: int = 200
    content_type: str = JSON
    retry_after_s: int | None = None


class Reply(Protocol):
    @property
    def begun(self) -> bool:
        """Whether the client has seen anything: from then on nobody else can answer."""
        ...

    async def write(self, events: bytes) -> None:
        """The next whole events of a stream. Raises ConnectionResetError for a client that is gone."""
        ...

    async def send(self, answer: WholeAnswer) -> None:
        """All of it. Raises ConnectionResetError for a client that is gone."""
        ...


class HttpReply:
    """To a client's connection."""

    def __init__(self, request: web.Request, stall_seconds_max: float) -> None:
        self._request = request
        self._stall_seconds_max = stall_seconds_max
        self.response: web.StreamResponse | None = None
        """What the handler returns; None where the client left before there was an answer."""

    @property
    def begun(self) -> bool:
        return self.response is not None

    async def write(self, events: bytes) -> None:
        response, transport = self.response, self._request.transport
        if response is None:
            self.response = response = web.StreamResponse(headers=EVENT_STREAM)
            await response.prepare(self._request)
        if transport is None or (transport.get_write_buffer_size() == 0 and len(events) <= SMALL_WRITE_BYTES):
            await response.write(events)
            return
        try:
            async with asyncio.timeout(self._stall_seconds_max):
                await response.write(events)
        except TimeoutError:
            transport.abort()
            raise ConnectionResetError("the client takes nothing") from None

    async def send(self, answer: WholeAnswer) -> None:
        self.response = http_response(answer)


def http_response(answer: WholeAnswer) -> web.Response:
    headers = {"Content-Type": answer.content_type}
    if answer.retry_after_s is not None:
        headers["Retry-After"] = str(answer.retry_after_s)
    if answer.status == 401:
        headers["WWW-Authenticate"] = "Bearer"
    return web.Response(body=answer.body, status=answer.status, headers=headers)


def refusal(error: MeshError, path: str) -> WholeAnswer:
    """An error in the form of the path's dialect."""
    shape = anthropic_shape(error) if path.startswith("/v1/messages") else openai_shape(error)
    retry_after = error.retry_after_s if isinstance(error, Unavailable) else None
    return WholeAnswer(dump(shape), error.http_status, retry_after_s=retry_after)
