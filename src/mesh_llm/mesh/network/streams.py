"""A stream of frames over a pipe of bytes: the same over iroh, over TLS and in memory.

A stream opens with a frame of two bytes, its kind and its version; each side then sends frames and ends its
direction with an end mark. Without the mark the stream broke off, whatever the pipe says. Knows nothing of
networks: a `Pipe` is all it asks for.
"""

import asyncio
from collections.abc import Callable, Coroutine
from contextlib import suppress
from typing import Protocol, TypeVar

from mesh_llm.core.ids import NodeId, short
from mesh_llm.mesh.network.frames import (
    END_FRAME,
    Data,
    End,
    FrameDecoder,
    Refusal,
    data_frame,
    refusal_frame,
)
from mesh_llm.mesh.transport import VERSIONS, Kind, NotWanted, PeerError, Refused, Traffic, Unreachable

Result = TypeVar("Result")

READ_BYTES_AT_FIRST = 4 * 1024
"""Per read, until one is filled: a greeting or a few tokens fit, and a stream that waits holds no more."""

READ_BYTES = 256 * 1024
"""Per read of what comes in bulk. iroh fills zeros into a buffer of this size each time."""


class Pipe(Protocol):
    """Bytes both ways between two nodes, in order. All but the last two methods may raise Unreachable."""

    async def read(self, size: int) -> bytes:
        """1 to `size` bytes; none once the peer has finished. A cancelled read loses nothing."""
        ...

    async def write(self, data: bytes) -> None:
        """Waits while the peer is slow. A cancelled write may have written a part. Raises NotWanted where the
        peer has stopped reading and can still be read."""
        ...

    async def finish(self) -> None:
        """No more bytes from this side; what was written still arrives."""
        ...

    async def abort(self) -> None:
        """Let go at once. The peer sees a break in what was not finished."""
        ...

    async def done(self, rest: bytes) -> None:
        """Let go after both directions have ended; `rest` was read beyond the end."""
        ...


class FramedStream:
    """`mesh.transport.Stream` over a pipe."""

    def __init__(
        self,
        pipe: Pipe,
        peer: NodeId,
        on_closed: Callable[["FramedStream"], None] = lambda _: None,
        traffic: Traffic | None = None,
    ) -> None:
        self._pipe = pipe
        self._peer = peer
        self._traffic = traffic or Traffic()
        self._kind: Kind | None = None
        self._on_closed = on_closed
        self._decoder = FrameDecoder()
        self._read_bytes = READ_BYTES_AT_FIRST
        self._ended_here = False
        self._last: End | Refusal | None = None
        self._broken: str | None = None
        self._closed = False
        self._waits: set[asyncio.Timeout] = set()

    @property
    def peer(self) -> NodeId:
        return self._peer

    @property
    def kind(self) -> Kind:
        if self._kind is None:
            raise AssertionError("the kind is known only after begin() or expect()")
        return self._kind

    async def begin(self, kind: Kind) -> None:
        """Say what the stream is for. Raises Unreachable."""
        self._kind = kind
        await self.send(bytes((kind, VERSIONS[kind])))

    async def expect(self) -> bool:
        """Hear what the stream is for. False where it is not spoken here: the peer has been told.

        Raises Unreachable, PeerError.
        """
        first = await self.receive()
        if first is None or len(first) < 2:
            raise PeerError("a stream that does not say what it is for")
        refusal = _not_spoken(first[0], first[1])
        if refusal:
            await self.refuse(refusal)
            return False
        self._kind = Kind(first[0])
        return True

    async def send(self, frame: bytes) -> None:
        encoded = data_frame(frame)
        if self._ended_here:
            raise AssertionError("nothing may be sent after the end")
        self._traffic.sent[self.kind] += len(frame)
        await self._write(encoded)

    async def receive(self) -> bytes | None:
        while True:
            frame = self._last or self._next_frame()
            match frame:
                case Data(payload):
                    if self._kind is not None:
                        self._traffic.received[self._kind] += len(payload)
                    return payload
                case End():
                    self._last = frame
                    return None
                case Refusal(reason):
                    self._last = frame
                    raise Refused(reason)
                case None:
                    self._decoder.feed(await self._read())

    async def finish(self) -> None:
        await self._end_with(END_FRAME)

    async def refuse(self, reason: str) -> None:
        await self._end_with(refusal_frame(reason))

    async def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        self.interrupt("the stream was closed here")
        try:
            if self._ended_here and isinstance(self._last, End):
                await self._pipe.done(self._decoder.rest())
            else:
                await self._pipe.abort()
        finally:
            self._on_closed(self)

    def interrupt(self, reason: str) -> None:
        """Whoever waits on the stream, now or later, gets Unreachable with this reason."""
        self._broken = self._broken or reason
        now = asyncio.get_running_loop().time()
        for wait in self._waits:
            wait.reschedule(now)

    async def _end_with(self, last: bytes) -> None:
        if self._ended_here:
            return
        with suppress(NotWanted):  # who has heard enough has perhaps answered already
            await self._write(last)
            self._ended_here = True
            await self._interruptible(self._pipe.finish())
        self._ended_here = True

    def _next_frame(self) -> Data | End | Refusal | None:
        self._check()
        try:
            return self._decoder.next()
        except PeerError as error:
            self.interrupt(f"{short(self._peer)} broke the protocol: {error}")
            raise

    async def _read(self) -> bytes:
        piece = await self._interruptible(self._pipe.read(self._read_bytes))
        if not piece:
            raise Unreachable(f"the stream from {short(self._peer)} broke off before its end")
        if len(piece) == self._read_bytes:
            self._read_bytes = READ_BYTES
        return piece

    async def _write(self, encoded: bytes) -> None:
        try:
            await self._interruptible(self._pipe.write(encoded))
        except NotWanted:
            raise
        except BaseException:  # a part may have been sent: nothing sensible can follow
            self._broken = self._broken or "the stream broke off while something was sent"
            raise

    async def _interruptible(self, work: Coroutine[None, None, Result]) -> Result:
        """A timeout without a time: `interrupt` ends it. A pipe lets go only when nobody waits on it."""
        if self._broken:
            work.close()
            self._check()
        wait = asyncio.timeout(None)
        self._waits.add(wait)
        try:
            async with wait:
                return await work
        except TimeoutError:
            self._check()
            raise
        finally:
            self._waits.discard(wait)

    def _check(self) -> None:
        if self._broken:
            raise Unreachable(self._broken)


def _not_spoken(kind: int, version: int) -> str | None:
    if kind not in VERSIONS:
        spoken = ", ".join(f"{known.value} ({known.name.lower()})" for known in VERSIONS)
        return f"streams of kind {kind} are not spoken here; these are: {spoken}"
    if version != VERSIONS[Kind(kind)]:
        name = Kind(kind).name.lower()
        return f"{name} streams are spoken here in version {VERSIONS[Kind(kind)]}, not {version}"
    return None
