"""A connection to one peer, over any carrier: streams with a kind, datagrams, and a guard against silence.

It refuses politely what this version does not speak, keeps strangers to few streams, and ends itself when
a peer with open streams falls silent: the transports take half a minute for that, or for ever.
"""

import asyncio
from collections import deque
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress
from struct import Struct

from mesh_llm.core.ids import NodeId, short
from mesh_llm.mesh.network.carrier import Carrier
from mesh_llm.mesh.network.mailbox import Mailbox
from mesh_llm.mesh.network.streams import FramedStream, Pipe
from mesh_llm.mesh.network.tls_links import TlsLinks
from mesh_llm.mesh.network.tls_path import TlsPath
from mesh_llm.mesh.transport import (
    CONNECT_SECONDS_MAX,
    DATAGRAM_BYTES_MAX,
    SILENCE_SECONDS_MAX,
    FastPath,
    Kind,
    PeerError,
    Refused,
    Stream,
    Traffic,
    Unreachable,
)
from mesh_llm.runtime.tasks import beside

STREAMS_OF_STRANGER_MAX = 4
"""A handshake needs one, a request to join another. A parked stream may hold 1.25 MB of our memory."""

STREAMS_OF_MEMBER_MAX = 1024
"""Requests under way between two nodes; 16 models of 64 waiting requests each."""

PREAMBLE_SECONDS_MAX = 10.0
"""It travels with the stream's first packet."""

DATAGRAMS_WAITING_MAX = 256
"""More than that means that nobody reads them; the oldest go first, as in iroh."""

GUARD_SECONDS = 0.4
"""Between two looks at whether anything was heard."""

ROUND_TRIPS_KEPT = 8
"""The least of them counts: the others hold waits of busy processes."""

APPLICATION, PING, PONG = b"\0", b"\1", b"\2"
"""First byte of a datagram: for the mesh, or the guard's own."""

PING_NUMBER = Struct(">Q")


class CarriedConnection:
    """`mesh.transport.Connection` over a carrier. `run` must run beside it."""

    def __init__(self, carrier: Carrier, fast: TlsPath | None = None, traffic: Traffic | None = None) -> None:
        self._carrier = carrier
        self._fast = fast
        self._traffic = traffic or Traffic()
        self._links: TlsLinks | None = None
        self._introducing: asyncio.TaskGroup | None = None
        self._trusted = False
        self._open: set[FramedStream] = set()
        self._from_peer: set[FramedStream] = set()
        self._opening = 0
        self._in_use = asyncio.Event()
        self._streams: Mailbox[FramedStream] = Mailbox(STREAMS_OF_MEMBER_MAX)
        self._datagrams: Mailbox[bytes] = Mailbox(DATAGRAMS_WAITING_MAX)
        self._ended = asyncio.Event()
        self._all_taken_in = asyncio.Event()
        self._reason: str | None = None
        self._closed_here = False
        self._ping: tuple[int, float] = (0, 0.0)
        self._round_trips: deque[float] = deque(maxlen=ROUND_TRIPS_KEPT)
        carrier.allow_pipes(STREAMS_OF_STRANGER_MAX)

    @property
    def peer(self) -> NodeId:
        return self._carrier.peer

    @property
    def fast_path(self) -> FastPath | None:
        return self._fast.offer if self._fast else None

    def use_fast_path(self, offer: FastPath) -> None:
        """Raises PeerError where the offer is none."""
        if self._fast and not self._links and self._reason is None:
            self._links = TlsLinks(self._fast, self.peer, offer, self._take_in)

    @property
    def round_trip_s(self) -> float | None:
        return min(self._round_trips, default=None)

    @property
    def is_relayed(self) -> bool:
        return self._carrier.is_relayed

    def trust(self) -> None:
        self._trusted = True
        self._carrier.allow_pipes(STREAMS_OF_MEMBER_MAX)

    @asynccontextmanager
    async def stream(self, kind: Kind) -> AsyncGenerator[Stream]:
        stream = await self._begun(kind)
        try:
            yield stream
        finally:
            await stream.close()

    async def accept(self) -> Stream:
        return await self._streams.take()

    def send_datagram(self, data: bytes) -> None:
        if len(data) > DATAGRAM_BYTES_MAX:
            raise ValueError(f"a datagram holds at most {DATAGRAM_BYTES_MAX} bytes, not {len(data)}")
        if self._reason is None:
            self._carrier.send_datagram(APPLICATION + data)

    async def receive_datagram(self) -> bytes:
        return await self._datagrams.take()

    async def wait_closed(self) -> str:
        await self._ended.wait()
        return self._reason or ""

    def close(self, reason: str) -> None:
        if self._reason is not None:
            return
        self._closed_here = True
        self._end(reason)
        for stream in self._open:
            stream.interrupt(reason)
        self._streams.close(reason)
        self._streams.empty()
        self._datagrams.empty()
        self._all_taken_in.set()

    async def run(self) -> None:
        """Serve the connection until it has ended and the peer knows."""
        try:
            async with beside(
                streams=self._accept_streams(),
                datagrams=self._receive_datagrams(),
                guard=self._guard_against_silence(),
                carrier=self._watch_carrier(),
            ):
                await self._ended.wait()
                await self._all_taken_in.wait()
        finally:
            self.close("this node has stopped")
            if self._links:
                await self._links.close(at_once=self._closed_here)
            await self._carrier.close(self._reason or "")

    async def _begun(self, kind: Kind) -> FramedStream:
        if self._reason is not None:
            raise Unreachable(self._reason)
        self._opening += 1
        self._note_use()
        try:
            async with asyncio.timeout(CONNECT_SECONDS_MAX):
                return await self._begun_somehow(kind)
        except TimeoutError:
            raise Unreachable(f"{short(self.peer)} takes no more streams now") from None
        finally:
            self._opening -= 1
            self._note_use()

    async def _begun_somehow(self, kind: Kind) -> FramedStream:
        pipe = await self._links.open_pipe(self.round_trip_s) if self._links else None
        if pipe is not None:
            with suppress(Unreachable):
                return await self._begun_on(pipe, kind)
        return await self._begun_on(await self._carrier.open_pipe(), kind)

    async def _begun_on(self, pipe: Pipe, kind: Kind) -> FramedStream:
        stream = self._adopt(pipe)
        try:
            await stream.begin(kind)
        except BaseException:
            await stream.close()
            raise
        return stream

    async def _accept_streams(self) -> None:
        """Until the connection has ended, and then those that came before its end."""
        async with asyncio.TaskGroup() as self._introducing:
            try:
                while True:
                    await self._take_in(await self._carrier.accept_pipe())
            except Unreachable:
                pass
            finally:
                self._introducing = None  # the fast path may bring streams until the connection lets go of it
        await self._ended.wait()
        self._streams.close(self._reason or "")
        self._all_taken_in.set()

    async def _take_in(self, pipe: Pipe) -> None:
        streams_max = STREAMS_OF_MEMBER_MAX if self._trusted else STREAMS_OF_STRANGER_MAX
        if self._introducing is None or len(self._from_peer) >= streams_max:
            await pipe.abort()
            return
        stream = self._adopt(pipe)
        self._from_peer.add(stream)
        self._introducing.create_task(self._introduce(stream), name="stream preamble")

    async def _introduce(self, stream: FramedStream) -> None:
        """Hear what a new stream is for, and offer it to `accept`."""
        spoken = False
        with suppress(Unreachable, Refused, PeerError, TimeoutError):
            async with asyncio.timeout(PREAMBLE_SECONDS_MAX):
                spoken = await stream.expect()
        surplus = self._streams.put(stream) if spoken else stream
        if surplus is not None:
            await surplus.close()

    def _adopt(self, pipe: Pipe) -> FramedStream:
        stream = FramedStream(pipe, self.peer, self._let_go, self._traffic)
        self._open.add(stream)
        self._note_use()
        if self._closed_here and self._reason is not None:
            stream.interrupt(self._reason)
        return stream

    def _let_go(self, stream: FramedStream) -> None:
        self._open.discard(stream)
        self._from_peer.discard(stream)
        self._note_use()

    def _note_use(self) -> None:
        if self._open or self._opening:
            self._in_use.set()
        else:
            self._in_use.clear()

    async def _receive_datagrams(self) -> None:
        self._send_ping()
        with suppress(Unreachable):
            while True:
                datagram = await self._carrier.receive_datagram()
                mark, rest = datagram[:1], datagram[1:]
                if mark == APPLICATION:
                    self._datagrams.put(rest)
                elif mark == PING:
                    self._carrier.send_datagram(PONG + rest[: PING_NUMBER.size])
                elif mark == PONG:
                    self._note_pong(rest)

    def _send_ping(self) -> None:
        self._ping = (self._ping[0] + 1, asyncio.get_running_loop().time())
        self._carrier.send_datagram(PING + PING_NUMBER.pack(self._ping[0]))

    def _note_pong(self, number: bytes) -> None:
        if number == PING_NUMBER.pack(self._ping[0]):
            self._round_trips.append(asyncio.get_running_loop().time() - self._ping[1])

    async def _guard_against_silence(self) -> None:
        """Counts looks, not seconds: a machine that slept must listen before it judges."""
        silent_looks, heard = 0, self._carrier.packets_received
        while silent_looks * GUARD_SECONDS < SILENCE_SECONDS_MAX:
            await self._in_use.wait()
            self._send_ping()
            await asyncio.sleep(GUARD_SECONDS)
            before, heard = heard, self._carrier.packets_received
            silent_looks = silent_looks + 1 if heard == before else 0
        self.close(f"{short(self.peer)} has been silent for {SILENCE_SECONDS_MAX:.0f} s")

    async def _watch_carrier(self) -> None:
        self._end(await self._carrier.wait_ended())

    def _end(self, reason: str) -> None:
        """The first reason counts. What the peer finished before it left may still be read."""
        if self._reason is None:
            self._reason = reason
            self._datagrams.close(reason)
            self._ended.set()
