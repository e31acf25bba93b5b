"""One client's connection, in front of aiohttp's own protocol: tells a client that has said all from one that
left.

Both end their side in the same way. TCP tells them apart only when something is written: who has left answers
with a reset. So a client that ends its side after its request is still answered, and until then it is written
now and then what every HTTP client passes over: interim responses before the answer has begun, comments in an
event stream.
"""

import asyncio
from collections.abc import Callable

from aiohttp import HttpVersion11, web
from aiohttp.typedefs import Handler

FIRST_LOOK_AGAIN_S = 0.1
"""A first write brings the reset of a client that has left, a second one finds it."""

LOOK_AGAIN_S = 1.0

INTERIM = b"HTTP/1.1 100 Continue\r\n\r\n"
"""Of all interim responses the one that even the oldest clients know."""

COMMENT = b":\n\n"
COMMENT_CHUNK = b"3\r\n" + COMMENT + b"\r\n"


class WebConnections:
    """Of one server. The applications that it follows write event streams in whole events."""

    def __init__(self) -> None:
        self._by_protocol: dict[asyncio.BaseProtocol, WebConnection] = {}

    def follow(self, application: web.Application) -> None:
        """Before it is set up."""
        application.middlewares.insert(0, self._note_request)
        application.on_response_prepare.append(self._note_response)

    def accept(self, protocol: web.RequestHandler) -> "WebConnection":
        connection = WebConnection(protocol, self._forget)
        self._by_protocol[protocol] = connection
        return connection

    def _forget(self, protocol: asyncio.BaseProtocol) -> None:
        self._by_protocol.pop(protocol, None)

    @web.middleware
    async def _note_request(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        connection = self._by_protocol.get(request.protocol)
        if connection is None:
            return await handler(request)
        connection.request_begins(request)
        try:
            return await handler(request)
        finally:
            connection.request_ends()

    async def _note_response(self, request: web.Request, response: web.StreamResponse) -> None:
        connection = self._by_protocol.get(request.protocol)
        if connection is not None:
            connection.response_begins(response)


class WebConnection(asyncio.Protocol):
    def __init__(self, protocol: web.RequestHandler, on_lost: Callable[[asyncio.BaseProtocol], None]) -> None:
        self._protocol = protocol
        self._on_lost = on_lost
        self._transport: asyncio.Transport | None = None
        self._request: web.Request | None = None
        self._response: web.StreamResponse | None = None
        self._unread = False
        """Whether bytes came that may be a request which nobody handles yet."""
        self._next_look: asyncio.TimerHandle | None = None

    def request_begins(self, request: web.Request) -> None:
        self._request, self._response, self._unread = request, None, False

    def response_begins(self, response: web.StreamResponse) -> None:
        self._response = response

    def request_ends(self) -> None:
        self._request, self._unread = None, False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._protocol.connection_made(transport)

    def data_received(self, data: bytes) -> None:
        self._unread = True
        self._protocol.data_received(data)

    def pause_writing(self) -> None:
        self._protocol.pause_writing()

    def resume_writing(self) -> None:
        self._protocol.resume_writing()

    def connection_lost(self, exc: Exception | None) -> None:
        if self._next_look is not None:
            self._next_look.cancel()
        self._on_lost(self._protocol)
        self._protocol.connection_lost(exc)

    def eof_received(self) -> bool:
        """True keeps this side open."""
        if self._request is None and not self._unread:
            return False
        if self._request is not None and not self._request.content.is_eof():
            return False  # nobody will send the rest of the body
        self._protocol.close()  # no further request
        self._look_after(0)
        return True

    def _look_after(self, seconds: float) -> None:
        self._next_look = asyncio.get_running_loop().call_later(seconds, self._look, seconds)

    def _look(self, waited_s: float) -> None:
        transport, request = self._transport, self._request
        if transport is None or transport.is_closing():
            return
        if (request is None and waited_s) or (request is not None and not request.content.is_eof()):
            transport.close()  # what came was no request, or not a whole one
            return
        if request is not None and transport.get_write_buffer_size() == 0:
            transport.write(self._sign_of_life(request))
        self._look_after(LOOK_AGAIN_S if waited_s else FIRST_LOOK_AGAIN_S)

    def _sign_of_life(self, request: web.Request) -> bytes:
        """Bytes that mean nothing at this point of the conversation; none where there are no such."""
        if self._response is None:
            return INTERIM if request.version >= HttpVersion11 else b""
        if self._response.content_type != "text/event-stream":
            return b""
        chunked = self._response.headers.get("Transfer-Encoding") == "chunked"
        return COMMENT_CHUNK if chunked else COMMENT
