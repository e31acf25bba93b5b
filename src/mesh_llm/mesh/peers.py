"""The connections to other nodes: dialled when needed, let in at the door, closed when idle.

A connection begins with a HELLO stream in which each side shows its certificate; before that a peer can do
nothing but ask to join. What is said over the streams is the business of `Household`, which `service.py` is.
"""

import asyncio
import logging
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress
from typing import Protocol

from mesh_llm.core.ids import NodeId, short
from mesh_llm.mesh.acquaintance import ERRORS_MAX, Acquaintance
from mesh_llm.mesh.neighbour import Reach
from mesh_llm.mesh.transport import (
    CONNECT_SECONDS_MAX,
    Addresses,
    Connection,
    FastPath,
    Kind,
    NotWanted,
    PeerError,
    Refused,
    Stream,
    Transport,
    Unreachable,
)
from mesh_llm.runtime.clock import Clock

logger = logging.getLogger(__name__)

STRANGER_SECONDS_MAX = 10.0
"""Time to join or to show a certificate. Reading one takes milliseconds; the rest is the network."""

STRANGERS_MAX = 64
"""At once. One more, and the one that has had the longest time is cut off: members need milliseconds."""

JOIN_ATTEMPTS_MAX = 4
"""On one connection. A person tries a few tokens; a program that guesses pays a handshake each time."""

CONNECTIONS_OF_PEER_MAX = 4
"""Two where both sides dial at once, some more while a network changes. The oldest goes first."""

IDLE_SECONDS_MAX = 60.0
"""A connection unused for this long is closed. Probes go round all members at one a second: up to sixty
members stay connected to one another, larger meshes dial anew."""

IDLE_CHECKS_APART_S = 15.0

REDIAL_SECONDS_MAX = 5.0
"""Between two tries to reach a peer: less than the time in which a healed network must be whole again."""

SHUNNED_SECONDS = 60.0
"""For which a member that keeps breaking the protocol is neither let in nor dialled."""

IDLE = "idle"
"""The reason that a closed connection gives when nothing is wrong."""

NOT_A_MEMBER = "Show a certificate first (HELLO), or ask to join (JOIN)."
SHUNNED = "You broke the protocol too often: come again in a minute."


class Household(Protocol):
    """What the connections ask of those who live here."""

    def hello(self, fast_path: FastPath | None) -> bytes:
        """How this node introduces itself."""
        ...

    def welcome(self, peer: NodeId, greeting: bytes) -> FastPath | None:
        """Raises Refused or PeerError where the peer may not be in. Returns its offer of a fast path."""
        ...

    def met(self, peer: NodeId) -> None:
        """There is a connection to a member."""
        ...

    def addresses_of(self, peer: NodeId) -> Addresses: ...

    async def admit(self, stream: Stream) -> None:
        """Answers a stranger's JOIN."""
        ...

    async def answer(self, stream: Stream) -> None:
        """Answers a member's stream."""
        ...

    def receive(self, peer: NodeId, datagram: bytes) -> None: ...

    def refused(self, peer: NodeId, reason: str) -> None:
        """A member whom this node dialled does not take it for one."""
        ...

    def lost(self, peer: NodeId, reason: str) -> None:
        """The last connection to a member has ended: not here, and not for being idle."""
        ...


class Peers:
    def __init__(self, transport: Transport, household: Household, clock: Clock) -> None:
        self._transport = transport
        self._household = household
        self._clock = clock
        self._known: dict[NodeId, list[Acquaintance]] = {}
        """The newest connection of each last: older ones may be dead already."""
        self._strangers: dict[Connection, None] = {}
        self._dials: dict[NodeId, asyncio.Task[Unreachable | Refused | None]] = {}
        self._redial_at: dict[NodeId, float] = {}
        self._shunned_until: dict[NodeId, float] = {}
        self._tasks: asyncio.TaskGroup
        self._running = False
        self.protocol_errors = 0
        """How often peers broke the protocol."""

    def __repr__(self) -> str:
        return f"<Peers {', '.join(short(peer) for peer in self._known)}>"

    async def run(self) -> None:
        """Let peers in until cancelled, or until the transport has been closed."""
        async with asyncio.TaskGroup() as self._tasks:
            self._running = True
            try:
                while True:
                    connection = await self._transport.accept()
                    self._tasks.create_task(self._receive(connection), name=f"from {short(connection.peer)}")
            except Unreachable:
                pass  # this node has left; what is under way ends by itself
            finally:
                self._running = False

    def connected(self) -> tuple[NodeId, ...]:
        return tuple(self._known)

    def reach_of(self, peer: NodeId) -> Reach | None:
        known = self._newest(peer)
        return Reach(known.connection.round_trip_s, known.connection.is_relayed) if known else None

    def send(self, peer: NodeId, datagram: bytes) -> None:
        """As a datagram does: it may be lost, for example while the peer cannot be reached."""
        known = self._newest(peer)
        if known is not None:
            known.use(self._clock.monotonic())
            known.connection.send_datagram(datagram)
        elif self._may_dial(peer):
            self._tasks.create_task(self._dial_and_send(peer, datagram), name=f"dial {short(peer)}")

    @asynccontextmanager
    async def stream(self, peer: NodeId, kind: Kind) -> AsyncGenerator[Stream]:
        """Raises Unreachable; Refused where the peer does not take this node for a member. What the body
        finds to be a PeerError is counted."""
        known = await self._acquaintance(peer)
        known.stream_begins()
        try:
            async with known.connection.stream(kind) as stream:
                yield stream
        except PeerError as error:
            self._count(peer, error, known)
            raise
        finally:
            known.stream_ends(self._clock.monotonic())

    def close(self, peer: NodeId, reason: str) -> None:
        """Ends every connection to a peer: it is dead, or out of the mesh."""
        for known in self._known.pop(peer, ()):
            known.connection.close(reason)

    # -- dialling ------------------------------------------------------------------------------------------

    async def _dial_and_send(self, peer: NodeId, datagram: bytes) -> None:
        with suppress(Unreachable, Refused):
            known = await self._acquaintance(peer)
            known.connection.send_datagram(datagram)

    def _may_dial(self, peer: NodeId) -> bool:
        may_again = self._clock.monotonic() >= self._redial_at.get(peer, 0.0)
        return self._running and may_again and peer not in self._dials

    async def _acquaintance(self, peer: NodeId) -> Acquaintance:
        """One that is there, or what comes of the one dial under way. Raises Unreachable, Refused."""
        known = self._newest(peer)
        if known is not None:
            known.use(self._clock.monotonic())
            return known
        dial = self._dials.get(peer) or self._begin_dial(peer)
        await asyncio.wait([dial])
        known = self._newest(peer)  # maybe from the other side, in the meantime
        if known is not None:
            return known
        why = None if dial.cancelled() else dial.result()
        if isinstance(why, Refused):
            raise Refused(str(why))
        raise Unreachable(str(why or f"the connection to {short(peer)} has ended again"))

    def _begin_dial(self, peer: NodeId) -> "asyncio.Task[Unreachable | Refused | None]":
        if not self._running:
            raise Unreachable("this node is not in the mesh now")
        if self._is_shunned(peer):
            raise Unreachable(f"{short(peer)} broke the protocol too often")
        dial = self._dials[peer] = self._tasks.create_task(self._outcome(peer), name=f"dial {short(peer)}")
        dial.add_done_callback(lambda _: self._dials.pop(peer))
        return dial

    async def _outcome(self, peer: NodeId) -> Unreachable | Refused | None:
        try:
            known = await self._dial(peer)
        except (Unreachable, Refused) as error:
            now = self._clock.monotonic()
            self._redial_at = _later_than(now, self._redial_at) | {peer: now + REDIAL_SECONDS_MAX}
            return error
        self._redial_at.pop(peer, None)
        self._tasks.create_task(self._serve(known), name=f"with {short(peer)}")
        self._household.met(peer)
        return None

    async def _dial(self, peer: NodeId) -> Acquaintance:
        connection = await self._transport.connect(peer, self._household.addresses_of(peer))
        try:
            return await self._greet(connection)
        except PeerError as error:
            self._count(peer, error)
            connection.close(str(error))
            raise Unreachable(str(error)) from error
        except BaseException as error:
            connection.close(str(error) or "cancelled")
            raise

    async def _greet(self, connection: Connection) -> Acquaintance:
        """Raises Unreachable; Refused where the peer does not take this node for a member; PeerError."""
        try:
            async with asyncio.timeout(CONNECT_SECONDS_MAX), connection.stream(Kind.HELLO) as stream:
                with suppress(NotWanted):  # it has said no before it has heard all
                    await stream.send(self._household.hello(connection.fast_path))
                await stream.finish()
                answer = await stream.receive()
        except TimeoutError:
            raise Unreachable("no answer to hello") from None
        except Refused as refused:
            self._household.refused(connection.peer, str(refused))
            raise
        try:
            return self._take_in(connection, answer or b"")
        except Refused as refused:
            connection.close(str(refused))  # so it hears the same as at the door
            raise Unreachable(f"{short(connection.peer)} is no member: {refused}") from None

    # -- letting in ----------------------------------------------------------------------------------------

    async def _receive(self, connection: Connection) -> None:
        self._strangers[connection] = None
        if len(self._strangers) > STRANGERS_MAX:
            next(iter(self._strangers)).close("too many strangers at once: try again")
        try:
            async with asyncio.timeout(STRANGER_SECONDS_MAX):
                known = await self._get_acquainted(connection)
        except (Unreachable, Refused, PeerError, TimeoutError) as error:
            if isinstance(error, PeerError):
                self._count(connection.peer, error)
            connection.close(str(error) or "no certificate was shown in time")
            return
        finally:
            self._strangers.pop(connection, None)
        if known in self._known.get(known.peer, ()):  # it may have been thrown out meanwhile
            self._household.met(known.peer)
        await self._serve(known)

    async def _get_acquainted(self, connection: Connection) -> Acquaintance:
        """Until the peer has shown that it is a member. Raises Refused for one that is not."""
        for _ in range(JOIN_ATTEMPTS_MAX):
            stream = await connection.accept()
            try:
                match stream.kind:
                    case Kind.HELLO:
                        return await self._return_hello(connection, stream)
                    case Kind.JOIN:
                        await self._household.admit(stream)
                    case _:
                        await stream.refuse(NOT_A_MEMBER)
            finally:
                await stream.close()
        raise Refused("too many tries")

    async def _return_hello(self, connection: Connection, stream: Stream) -> Acquaintance:
        hello = await stream.receive()
        try:
            if self._is_shunned(connection.peer):
                raise Refused(SHUNNED)
            known = self._take_in(connection, hello or b"")
        except Refused as refused:
            await stream.refuse(str(refused))
            raise
        try:
            await stream.send(self._household.hello(connection.fast_path))
            await stream.finish()
        except BaseException:
            self._forget(known)
            raise
        return known

    def _take_in(self, connection: Connection, hello: bytes) -> Acquaintance:
        """At once, so that `close` finds it from now on. Raises Refused, PeerError."""
        offer = self._household.welcome(connection.peer, hello)
        if offer is not None:
            connection.use_fast_path(offer)
        connection.trust()
        all_known = self._known.setdefault(connection.peer, [])
        all_known.append(Acquaintance(connection, self._clock.monotonic()))
        if len(all_known) > CONNECTIONS_OF_PEER_MAX:
            all_known[0].connection.close("there is a newer connection")
        return all_known[-1]

    # -- serving members -----------------------------------------------------------------------------------

    async def _serve(self, known: Acquaintance) -> None:
        """Answer a member until the connection ends."""
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._take_datagrams(known), name="datagrams")
                tasks.create_task(self._close_when_idle(known), name="idle")
                while True:
                    stream = await known.connection.accept()
                    tasks.create_task(self._answer(stream, known), name=stream.kind.name.lower())
        except* Unreachable:
            reason = await known.connection.wait_closed()
            ended_there = self._forget(known)
            if ended_there and known.peer not in self._known and reason != IDLE:
                self._household.lost(known.peer, reason)
        finally:
            self._forget(known)

    def _forget(self, known: Acquaintance) -> bool:
        """False where `close` has done so before."""
        known.connection.close("done")
        others = self._known.get(known.peer, [])
        if known not in others:
            return False
        others.remove(known)
        if not others:
            del self._known[known.peer]
        return True

    async def _answer(self, stream: Stream, known: Acquaintance) -> None:
        known.stream_begins()
        try:
            if stream.kind in (Kind.HELLO, Kind.JOIN):
                await stream.refuse("You are a member already.")
            else:
                await self._household.answer(stream)
        except PeerError as error:
            self._count(stream.peer, error, known)
        except (Unreachable, Refused):
            pass  # the peer went away, or did not want the answer: that is its right
        finally:
            await stream.close()
            known.stream_ends(self._clock.monotonic())

    async def _take_datagrams(self, known: Acquaintance) -> None:
        while True:
            datagram = await known.connection.receive_datagram()
            known.use(self._clock.monotonic())
            try:
                self._household.receive(known.peer, datagram)
            except PeerError as error:
                self._count(known.peer, error, known)

    async def _close_when_idle(self, known: Acquaintance) -> None:
        while True:
            await asyncio.sleep(IDLE_CHECKS_APART_S)
            if known.unused_s(self._clock.monotonic()) > IDLE_SECONDS_MAX:
                known.connection.close(IDLE)

    # ------------------------------------------------------------------------------------------------------

    def _newest(self, peer: NodeId) -> Acquaintance | None:
        return self._known[peer][-1] if peer in self._known else None

    def _is_shunned(self, peer: NodeId) -> bool:
        return self._clock.monotonic() < self._shunned_until.get(peer, 0.0)

    def _count(self, peer: NodeId, error: PeerError, known: Acquaintance | None = None) -> None:
        self.protocol_errors += 1
        now = self._clock.monotonic()
        times = known.err(now) if known else 1
        if times == 1:
            logger.warning("%s broke the protocol: %s", short(peer), error)
        if times == ERRORS_MAX:
            logger.warning("%s broke the protocol %d times: it is cut off", short(peer), times)
            self._shunned_until = _later_than(now, self._shunned_until) | {peer: now + SHUNNED_SECONDS}
            for each in self._known.get(peer, ()):
                each.connection.close(SHUNNED)


def _later_than(now: float, times: dict[NodeId, float]) -> dict[NodeId, float]:
    return {node: time for node, time in times.items() if time > now}
