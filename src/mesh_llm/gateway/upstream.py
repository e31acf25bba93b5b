"""The door to an engine's HTTP. The only file of the gateway that opens connections.

An `Upstream` is chosen per backend, so that one on another node can be asked through a stream of the mesh.
"""

import io
from collections.abc import AsyncGenerator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Protocol

import aiohttp

from mesh_llm.core.limits import REQUEST_BODY_BYTES_MAX
from mesh_llm.core.serving import Endpoint

CONNECT_SECONDS_MAX = 10.0
"""A live engine accepts at once, even under load; a long prefill is silent only after that."""

BODY_BYTES_AT_ONCE = 1024 * 1024
"""A larger request is written in pieces: aiohttp warns of blocking the loop otherwise."""

ANSWER_BYTES_MAX = 4 * REQUEST_BODY_BYTES_MAX
"""A whole (not streamed) answer: embeddings of a full request body are the largest."""


class UpstreamLost(Exception):
    """The engine could not be reached or broke off: caught by the proxy, which asks the backend why."""


class UpstreamAnswer(Protocol):
    @property
    def status(self) -> int: ...

    def chunks(self) -> AsyncGenerator[bytes]:
        """Bytes as they arrive. Raises UpstreamLost when they break off."""
        ...

    async def whole(self) -> bytes:
        """All of it, bounded. Raises UpstreamLost when it breaks off."""
        ...


class Upstream(Protocol):
    def send(
        self, endpoint: Endpoint, path: str, body: bytes | None
    ) -> AbstractAsyncContextManager[UpstreamAnswer]:
        """POSTs `body` (GETs where it is None). Leaving the context cancels what is still being computed."""
        ...


class HttpAnswer:
    def __init__(self, response: aiohttp.ClientResponse) -> None:
        self._response = response

    @property
    def status(self) -> int:
        return self._response.status

    async def chunks(self) -> AsyncGenerator[bytes]:
        try:
            async for chunk in self._response.content.iter_any():
                yield chunk
        except (aiohttp.ClientError, OSError) as error:
            raise UpstreamLost(str(error)) from error

    async def whole(self) -> bytes:
        parts: list[bytes] = []
        size = 0
        async for chunk in self.chunks():
            size += len(chunk)
            if size > ANSWER_BYTES_MAX:
                raise UpstreamLost(f"an answer of more than {ANSWER_BYTES_MAX} bytes")
            parts.append(chunk)
        return b"".join(parts)


class HttpUpstream:
    """One connection a request, closed with it: that is what tells an engine to stop computing.

    Sends no header of the client's: some (X-Conversation-Id) would keep a generation alive after its end.
    Goes where it was told and nowhere else: a redirect is an answer like others.
    """

    def __init__(self) -> None:
        self._session: aiohttp.ClientSession | None = None

    async def open(self) -> None:
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(force_close=True, limit=0),
            cookie_jar=aiohttp.DummyCookieJar(),
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_SECONDS_MAX),
            trust_env=False,
        )

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()

    @asynccontextmanager
    async def send(self, endpoint: Endpoint, path: str, body: bytes | None) -> AsyncGenerator[UpstreamAnswer]:
        assert self._session is not None, "open() comes first"
        headers = {"Content-Type": "application/json"}
        if endpoint.api_key:
            headers["Authorization"] = f"Bearer {endpoint.api_key}"
        method = "GET" if body is None else "POST"
        data = io.BytesIO(body) if body and len(body) > BODY_BYTES_AT_ONCE else body
        try:
            response = await self._session.request(
                method, endpoint.url + path, data=data, headers=headers, allow_redirects=False
            )
        except (aiohttp.ClientError, OSError) as error:
            raise UpstreamLost(str(error)) from error
        try:
            yield HttpAnswer(response)
        finally:
            response.close()
