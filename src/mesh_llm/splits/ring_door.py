"""Where RING streams arrive, and how they are opened: each is let in for one session, from one node.

The stage before may come before this node has heard of the session from its leader: it is asked to wait a
moment. Holders and heads use it alike. Knows nothing of the bytes that follow.
"""

import asyncio
from collections import Counter
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from mesh_llm.core.ids import NodeId, short
from mesh_llm.mesh.transport import Kind, PeerError, Stream, Unreachable
from mesh_llm.runtime.bell import Bell
from mesh_llm.runtime.tasks import beside
from mesh_llm.splits.holder_link import Open
from mesh_llm.splits.messages import WELCOME, RingHello, decode_ring_hello, encode

HELLO_SECONDS_MAX = 10.0

PATIENCE_SECONDS = 10.0
"""For the leader's word about a session that a stage speaks of already."""

WELCOME_SECONDS_MAX = PATIENCE_SECONDS + 5.0

WAITING_OF_PEER_MAX = 64
"""As many rings as two nodes may set up at once."""


@dataclass(eq=False, slots=True)
class _Place:
    """Kept free for one stream."""

    previous: NodeId
    arrived: "asyncio.Future[Stream]"
    left: asyncio.Event = field(default_factory=asyncio.Event)


class RingDoor:
    def __init__(self) -> None:
        self._places: dict[RingHello, _Place] = {}
        self._waiting: Counter[NodeId] = Counter()
        self._kept = Bell()

    def __repr__(self) -> str:
        return f"<RingDoor {len(self._places)} expected, {self._waiting.total()} waiting>"

    @asynccontextmanager
    async def expect(self, hello: RingHello, previous: NodeId) -> "AsyncGenerator[asyncio.Future[Stream]]":
        """The stream that `previous` opens with this hello; it is closed when the context is left.

        Raises PeerError where it is expected already: sessions are drawn anew for each.
        """
        if hello in self._places:
            raise PeerError("a ring's session that is set up here already")
        place = _Place(previous, asyncio.get_running_loop().create_future())
        self._places[hello] = place
        self._kept.ring()
        try:
            yield place.arrived
        finally:
            del self._places[hello]
            place.arrived.cancel()
            place.left.set()

    async def answer(self, stream: Stream) -> None:
        """Until whoever expected the stream lets go of it. Raises PeerError, Unreachable."""
        hello = await self._hello_of(stream)
        async with beside(departure=_watch_for_departure(stream)):
            place = await self._place_for(hello, stream.peer)
        if place is None:
            await stream.refuse("No ring with this session is set up here.")
        elif place.previous != stream.peer:
            await stream.refuse("Another node than you is the stage before, for this session.")
        elif place.arrived.done():
            await stream.refuse("The stage before is connected already.")
        else:
            await stream.send(WELCOME)
            if not place.arrived.done():
                place.arrived.set_result(stream)
                await place.left.wait()

    async def _hello_of(self, stream: Stream) -> RingHello:
        try:
            async with asyncio.timeout(HELLO_SECONDS_MAX):
                return decode_ring_hello(await stream.receive() or b"")
        except TimeoutError:
            raise Unreachable(f"{short(stream.peer)} did not say which ring it means") from None

    async def _place_for(self, hello: RingHello, peer: NodeId) -> _Place | None:
        if hello not in self._places and self._waiting[peer] < WAITING_OF_PEER_MAX:
            self._waiting[peer] += 1
            try:
                async with asyncio.timeout(PATIENCE_SECONDS):
                    while hello not in self._places:
                        await self._kept.wait_for_ring()
            except TimeoutError:
                return None
            finally:
                self._waiting[peer] -= 1
        return self._places.get(hello)


async def _watch_for_departure(stream: Stream) -> None:
    """Raises Unreachable where who waits has gone; it says nothing before it is welcome."""
    await stream.receive()
    raise PeerError("bytes of a ring before the welcome")


@asynccontextmanager
async def ring_to(node: NodeId, hello: RingHello, open_stream: Open) -> AsyncGenerator[Stream]:
    """A stream to the next stage, which has said welcome. Raises Unreachable, Refused, PeerError."""
    async with open_stream(node, Kind.RING) as stream:
        await stream.send(encode(hello))
        try:
            async with asyncio.timeout(WELCOME_SECONDS_MAX):
                answer = await stream.receive()
        except TimeoutError:
            raise Unreachable(f"{short(node)} does not take the ring's stream") from None
        if answer != WELCOME:
            raise PeerError("an answer to a ring's hello that is no welcome")
        yield stream
