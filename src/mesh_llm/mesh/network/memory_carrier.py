"""One connection of a network in memory: `carrier.py`'s twin of an iroh connection, with its limits.

The numbers are those measured on iroh: window, streams at once, time until it gives a silent peer up.
"""

import asyncio
from collections.abc import Callable
from itertools import count

from mesh_llm.core.ids import NodeId
from mesh_llm.mesh.network.mailbox import Mailbox
from mesh_llm.mesh.network.memory_wire import Wire
from mesh_llm.mesh.transport import NotWanted, Unreachable
from mesh_llm.runtime.bell import Bell

WINDOW_BYTES = 1_250_000
"""Unread bytes of one stream."""

PIPES_AT_FIRST = 100
"""What a peer may open before anybody has allowed more; it cannot be taken back."""

IDLE_SECONDS_MAX = 30.0
KEEP_ALIVE_SECONDS = 5.0

GOODBYE_SECONDS_MAX = 1.0

DATAGRAMS_WAITING_MAX = 1111

PipeName = tuple[bool, int]
"""Whether the side that dialled has opened it; its number."""


class MemoryPipe:
    """`streams.Pipe`. The methods beginning with `on_` are called when the peer's messages arrive."""

    def __init__(self, carrier: "MemoryCarrier", name: PipeName) -> None:
        self.name = name
        self._carrier = carrier
        self._changed = Bell()
        self._shown = False
        self._unread = bytearray()
        self._room = WINDOW_BYTES
        self._finished_here = False
        self._finished_there = False
        self._broken: str | None = None
        self._stopped = False

    async def read(self, size: int) -> bytes:
        while not self._unread:
            if self._finished_there:
                return b""
            self._check(self._broken)
            await self._changed.wait_for_ring()
        piece = bytes(self._unread[:size])
        del self._unread[:size]
        self._carrier.tell(self.name, lambda peer: peer.on_room(len(piece)))
        return piece

    async def write(self, data: bytes) -> None:
        rest = memoryview(data)
        while rest:
            self._check(self._broken)
            if self._stopped:
                raise NotWanted("the peer reads no more of this stream")
            if not self._room:
                await self._changed.wait_for_ring()
                continue
            piece, rest = bytes(rest[: self._room]), rest[self._room :]
            self._room -= len(piece)
            self._show()
            self._carrier.tell(self.name, _arrival(piece))
        await asyncio.sleep(0)

    async def finish(self) -> None:
        self._check(self._broken)
        self._finished_here = True
        self._show()
        self._carrier.tell(self.name, lambda peer: peer.on_finish())

    async def abort(self) -> None:
        if self._shown and not self._finished_here:
            self._carrier.tell(self.name, lambda peer: peer.on_reset())
        if self._shown:
            self._carrier.tell(self.name, lambda peer: peer.on_stop())
        self._carrier.forget(self)

    async def done(self, rest: bytes) -> None:
        self._carrier.forget(self)

    def shown(self) -> None:
        """The peer knows it: it has opened it."""
        self._shown = True

    def break_off(self, reason: str) -> None:
        self._broken = self._broken or reason
        self._changed.ring()

    def on_bytes(self, piece: bytes) -> None:
        self._unread += piece
        self._changed.ring()

    def on_room(self, size: int) -> None:
        self._room += size
        self._changed.ring()

    def on_finish(self) -> None:
        self._finished_there = True
        self._changed.ring()

    def on_reset(self) -> None:
        self._unread.clear()
        self.break_off("the peer broke the stream off")

    def on_stop(self) -> None:
        self._stopped = True
        self._changed.ring()

    def _show(self) -> None:
        if not self._shown:
            self._shown = True
            self._carrier.show(self.name)

    def _check(self, broken: str | None) -> None:
        if broken:
            raise Unreachable(broken)


def _arrival(piece: bytes) -> Callable[[MemoryPipe], None]:
    return lambda peer: peer.on_bytes(piece)


class MemoryCarrier:
    """`carrier.Carrier`. `join` two of them."""

    def __init__(self, peer: NodeId, dialled: bool, wire: Wire, is_relayed: Callable[[], bool]) -> None:
        self.peer = peer
        self._dialled = dialled
        self.packets_received = 0
        self._wire = wire
        self._is_relayed = is_relayed
        self._twin: MemoryCarrier = self
        self._numbers = count()
        self._pipes: dict[PipeName, MemoryPipe] = {}
        self._opened = 0
        self._pipes_max = PIPES_AT_FIRST
        self._room_for_pipes = Bell()
        self._arrived: Mailbox[MemoryPipe] = Mailbox(2**16)
        self._datagrams: Mailbox[bytes] = Mailbox(DATAGRAMS_WAITING_MAX)
        self._reason: str | None = None
        self._ended = asyncio.Event()
        self._heard_at = asyncio.get_running_loop().time()
        self._keep_alive_timer = asyncio.get_running_loop().call_later(KEEP_ALIVE_SECONDS, self._keep_alive)

    def join(self, twin: "MemoryCarrier") -> None:
        self._twin, twin._twin = twin, self

    @property
    def is_relayed(self) -> bool:
        return self._is_relayed()

    async def open_pipe(self) -> MemoryPipe:
        while self._reason is None and self._opened >= self._pipes_max:
            await self._room_for_pipes.wait_for_ring()
        if self._reason is not None:
            raise Unreachable(self._reason)
        self._opened += 1
        return self._new_pipe((self._dialled, next(self._numbers)))

    async def accept_pipe(self) -> MemoryPipe:
        return await self._arrived.take()

    def allow_pipes(self, count: int) -> None:
        def allowed(twin: MemoryCarrier) -> None:
            twin._pipes_max = max(twin._pipes_max, count)
            twin._room_for_pipes.ring()

        self._send(allowed)

    def send_datagram(self, data: bytes) -> None:
        self._wire.toss(lambda: self._twin._on_packet(lambda twin: twin._datagrams.put(data)))

    async def receive_datagram(self) -> bytes:
        return await self._datagrams.take()

    async def wait_ended(self) -> str:
        await self._ended.wait()
        return self._reason or ""

    async def close(self, reason: str) -> None:
        try:
            if self._reason is None:
                self._send(lambda twin: twin._end(reason))
                self._end(reason)
                async with asyncio.timeout(GOODBYE_SECONDS_MAX):
                    await self._wire.wait_empty()
        except TimeoutError:
            pass  # the peer is not there to hear it
        finally:
            self._wire.stop()

    def tell(self, name: PipeName, message: Callable[[MemoryPipe], object]) -> None:
        """To the other end of a pipe; lost where it has been let go of."""

        def deliver(twin: MemoryCarrier) -> None:
            pipe = twin._pipes.get(name)
            if pipe is not None:
                message(pipe)

        self._send(deliver)

    def show(self, name: PipeName) -> None:
        """Let the peer see a pipe that was opened here."""

        def shown(twin: MemoryCarrier) -> None:
            pipe = twin._new_pipe(name)
            pipe.shown()
            twin._arrived.put(pipe)

        self._send(shown)

    def forget(self, pipe: MemoryPipe) -> None:
        if self._pipes.pop(pipe.name, None) is None:
            return
        if pipe.name[0] != self._dialled:
            self._send(lambda twin: twin._on_pipe_room())

    def _new_pipe(self, name: PipeName) -> MemoryPipe:
        pipe = self._pipes[name] = MemoryPipe(self, name)
        return pipe

    def _on_pipe_room(self) -> None:
        self._opened -= 1
        self._room_for_pipes.ring()

    def _send(self, message: Callable[["MemoryCarrier"], None]) -> None:
        if self._reason is None:
            self._wire.send(lambda: self._twin._on_packet(message))

    def _on_packet(self, message: Callable[["MemoryCarrier"], object]) -> None:
        self._heard()
        self._wire.toss(self._twin._heard)  # an acknowledgement
        if self._reason is None:
            message(self)

    def _heard(self) -> None:
        self.packets_received += 1
        self._heard_at = asyncio.get_running_loop().time()

    def _keep_alive(self) -> None:
        loop = asyncio.get_running_loop()
        if loop.time() - self._heard_at > IDLE_SECONDS_MAX:
            self._end("timed out")
            return
        self._wire.toss(lambda: self._twin._on_packet(lambda _: None))
        self._keep_alive_timer = loop.call_later(KEEP_ALIVE_SECONDS, self._keep_alive)

    def _end(self, reason: str) -> None:
        if self._reason is not None:
            return
        self._reason = reason
        self._keep_alive_timer.cancel()
        for pipe in self._pipes.values():
            pipe.break_off(reason)
        self._arrived.close(reason)
        self._datagrams.close(reason)
        self._room_for_pipes.ring()
        self._ended.set()
