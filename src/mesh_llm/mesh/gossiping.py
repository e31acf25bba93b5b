"""The shell around `Membership` and `Adverts`: owns their timers, sends what they say, fetches what they ask.

Decides nothing. Its counterpart is the same shell on every other member; who may be one is not its question.
"""

import asyncio
from collections.abc import Callable
from contextlib import suppress

from mesh_llm.core.ids import NodeId, short
from mesh_llm.mesh.exchanging import NOT_TODAY, exchange_with
from mesh_llm.mesh.gossip import exchange, wire
from mesh_llm.mesh.gossip.advert import Advert, SignedAdvert
from mesh_llm.mesh.gossip.adverts import (
    AdvertChanged,
    AdvertEvent,
    Adverts,
    Announced,
    AnnounceOwn,
    Fetch,
    FetchEnded,
    Forgotten,
    Received,
)
from mesh_llm.mesh.gossip.exchange import AdvertsWanted, Frame, View
from mesh_llm.mesh.gossip.membership import Membership
from mesh_llm.mesh.gossip.membership_events import (
    AdvertHeld,
    Event,
    Member,
    MemberChanged,
    MemberForgotten,
    MessageReceived,
    SendMessage,
    Started,
    StartTimer,
    Synchronise,
    Timer,
    TimerFired,
    ViewReceived,
    WantAdvert,
)
from mesh_llm.mesh.gossip.wire import Unknown
from mesh_llm.mesh.peers import Peers
from mesh_llm.mesh.transport import Kind, Stream
from mesh_llm.runtime.clock import Clock


class Gossiping:
    def __init__(
        self,
        membership: Membership,
        adverts: Adverts,
        peers: Peers,
        clock: Clock,
        busy: Callable[[], int],
        on_member: Callable[[Member], None],
        on_advert: Callable[[Advert], None],
        on_synchronise: Callable[[NodeId], None],
    ) -> None:
        self.membership = membership
        self.adverts = adverts
        self._peers = peers
        self._clock = clock
        self._busy = busy
        self._on_member = on_member
        self._on_advert = on_advert
        self._on_synchronise = on_synchronise
        self._timers: set[asyncio.TimerHandle] = set()
        self._ended = False
        self._tasks: asyncio.TaskGroup

    def begin(self, tasks: asyncio.TaskGroup) -> None:
        self._tasks = tasks
        self.tell(Started())

    def end(self) -> None:
        """No timer outlives the group, and nothing begins any more."""
        self._ended = True
        for timer in self._timers:
            timer.cancel()

    def tell(self, event: Event) -> None:
        if self._ended:
            return
        self.membership.busy = self._busy()
        for effect in self.membership.handle(event, self._clock.monotonic()):
            match effect:
                case SendMessage(to, message):
                    self._peers.send(to, wire.encode(message))
                case StartTimer(after, timer):
                    self._start(after, timer)
                case MemberChanged(member):
                    self._on_member(member)
                case MemberForgotten(node):
                    self.tell_adverts(Forgotten(node))
                case Synchronise(node):
                    self._tasks.create_task(self._synchronise(node), name=f"synchronise with {short(node)}")
                case WantAdvert(node, version, from_peer):
                    self.tell_adverts(Announced(node, version, from_peer))

    def tell_adverts(self, event: AdvertEvent) -> None:
        """Raises PeerError for an advert that is forged."""
        if self._ended:
            return
        for effect in self.adverts.handle(event, self._clock.monotonic()):
            match effect:
                case Fetch(nodes, from_peer):
                    fetching = self._fetch(nodes, from_peer)
                    self._tasks.create_task(fetching, name=f"adverts from {short(from_peer)}")
                case AdvertChanged(advert):
                    self._on_advert(advert)
                    self.tell(AdvertHeld(advert.node, advert.version))
                case AnnounceOwn(node, version):
                    self.tell(AdvertHeld(node, version))

    def receive(self, peer: NodeId, datagram: bytes) -> None:
        """Raises PeerError."""
        message = wire.decode(datagram)
        if not isinstance(message, Unknown):
            self.tell(MessageReceived(peer, message))

    async def answer(self, stream: Stream) -> None:
        """A member's GOSSIP stream. Raises PeerError, Unreachable."""
        match await _next_frame(stream):
            case View(members):
                self.tell(ViewReceived(stream.peer, members))
                await stream.send(exchange.encode(View(self.membership.answer_to(members))))
            case AdvertsWanted(nodes):
                for signed in self.adverts.answer_to(nodes):
                    await stream.send(exchange.encode(signed))
            case _:
                pass  # from a newer peer: it sees that nothing came
        await stream.finish()

    def _start(self, after: float, timer: Timer) -> None:
        def fire() -> None:
            self._timers.discard(handle)
            self.tell(TimerFired(timer))

        handle = asyncio.get_running_loop().call_later(after, fire)
        self._timers.add(handle)

    async def _synchronise(self, node: NodeId) -> None:
        with suppress(*NOT_TODAY):
            async with exchange_with(node, Kind.GOSSIP, self._peers) as stream:
                await stream.send(exchange.encode(View(self.membership.view())))
                await stream.finish()
                frame = await _next_frame(stream)
                if isinstance(frame, View):
                    self.tell(ViewReceived(node, frame.members))
            self._on_synchronise(node)

    async def _fetch(self, nodes: tuple[NodeId, ...], from_peer: NodeId) -> None:
        with suppress(*NOT_TODAY):
            async with exchange_with(from_peer, Kind.GOSSIP, self._peers) as stream:
                await stream.send(exchange.encode(AdvertsWanted(nodes)))
                await stream.finish()
                while (frame := await _next_frame(stream)) is not None:
                    if isinstance(frame, SignedAdvert):
                        self.tell_adverts(Received(frame, from_peer))
        self.tell_adverts(FetchEnded(from_peer))


async def _next_frame(stream: Stream) -> Frame | Unknown | None:
    frame = await stream.receive()
    return exchange.decode(frame) if frame is not None else None
