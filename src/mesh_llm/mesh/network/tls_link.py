"""One TLS connection, which carries one stream at a time, and the stream's pipe over it.

An end mark ends a stream, not the link: a link whose streams have all ended cleanly carries the next one.
"""

import asyncio
import socket
import ssl
from collections.abc import Callable
from contextlib import suppress

from mesh_llm.mesh.transport import Unreachable

BUFFER_BYTES = 256 * 1024
"""Read ahead of who reads; twice as much may wait."""

LINGER_SECONDS_MAX = 1.0
"""For the peer to read our last bytes while its own come in vain. Closing at once would throw ours away."""

SHUTDOWN_SECONDS_MAX = 1.0
"""For the peer's own goodbye, as TLS wants it."""

KEEP_ALIVE = {"TCP_KEEPIDLE": 2, "TCP_KEEPALIVE": 2, "TCP_KEEPINTVL": 1, "TCP_KEEPCNT": 2}
"""Seconds, seconds (macOS), seconds, tries: an idle link whose peer is gone is known as dead after 4 s. There
is no user timeout: Linux counts it against a healthy peer that only reads slowly."""

Failures = (OSError, EOFError)
"""ssl.SSLError is an OSError."""


class TlsLink:
    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self._rest = b""
        _configure(writer.get_extra_info("socket"))

    @property
    def is_usable(self) -> bool:
        return not (self._reader.at_eof() or self._reader.exception() or self._writer.is_closing())

    @property
    def certificate(self) -> bytes | None:
        """The peer's, proven by the handshake."""
        tls: ssl.SSLObject = self._writer.get_extra_info("ssl_object")
        return tls.getpeercert(binary_form=True)

    async def read(self, size: int) -> bytes:
        """1 to `size` bytes; none once the peer is gone. Raises Unreachable."""
        if self._rest:
            piece, self._rest = self._rest[:size], self._rest[size:]
            return piece
        try:
            return await self._reader.read(size)
        except Failures as error:
            raise _broken(error) from None

    def unread(self, rest: bytes) -> None:
        """`rest` comes again with the next read."""
        self._rest = rest + self._rest

    async def write(self, data: bytes) -> None:
        """Waits while the peer is slow. Raises Unreachable."""
        try:
            self._writer.write(data)
            await self._writer.drain()
        except Failures as error:
            raise _broken(error) from None

    def abort(self) -> None:
        """At once: the peer sees a break."""
        self._writer.transport.abort()

    async def close(self) -> None:
        """After what was written has gone."""
        self._writer.close()
        with suppress(*Failures, TimeoutError):
            async with asyncio.timeout(SHUTDOWN_SECONDS_MAX):
                await self._writer.wait_closed()
        self.abort()

    async def linger(self) -> None:
        """Read on for a while without use, then close."""
        with suppress(TimeoutError, Unreachable):
            async with asyncio.timeout(LINGER_SECONDS_MAX):
                while await self.read(BUFFER_BYTES):
                    pass
        await self.close()


class LinkPipe:
    """`streams.Pipe` for one stream over a link. `on_over` hears whether the link can carry the next."""

    def __init__(self, link: TlsLink, on_over: Callable[["LinkPipe", bool], None]) -> None:
        self.link = link
        self.is_finished = False
        self._on_over = on_over
        self.read = link.read
        self.write = link.write

    async def finish(self) -> None:
        self.is_finished = True

    async def abort(self) -> None:
        if not self.is_finished:
            self.link.abort()
        self._on_over(self, False)

    async def done(self, rest: bytes) -> None:
        self.link.unread(rest)
        self._on_over(self, True)


def _configure(connected: socket.socket) -> None:
    """asyncio leaves small frames to be held back where a socket was accepted from a listener without a named
    protocol: each answer would take a round trip more."""
    connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    connected.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in KEEP_ALIVE.items():
        if hasattr(socket, name):
            connected.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)


def _broken(error: Exception) -> Unreachable:
    return Unreachable(f"the fast path broke: {error}")
