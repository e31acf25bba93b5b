"""The connections to other nodes: dialled when needed, let in at the door, closed when idle.

A connection begins with a HELLO stream in which each side shows its certificate; before that a peer can do
nothing but ask to join. What is said over the streams is the business of `Household`, which `service.py` is.
"""

import asyncio
import contextlib
import logging
from collections import defaultdict
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Protocol

from mesh_llm.core.ids import NodeId, short
from mesh_llm.mesh.transport import (
    CONNECT_SECONDS_MAX,
    Addresses,
    Connection,
    FastPath,
    Kind,
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

JOIN_ATTEMPTS_MAX = 4
"""On one connection. A person tries a few tokens; a program that guesses pays a handshake each time."""

IDLE_SECONDS_MAX = 60.0
"""A connection unused for this long is closed. Probes go round all members at one a second: up to sixty
members stay connected to one another, larger meshes dial anew."""

IDLE_CHECKS_APART_S = 15.0

REDIAL_SECONDS_MAX = 5.0
"""Between two tries to reach a peer: less than the time in which a healed network must be whole again."""

IDLE = "idle"
"""The reason that a closed connection gives when nothing is wrong."""

NOT_A_MEMBER = "Show a certificate first (HELLO), or ask to join (JOIN)."


class Household(Protocol):
    """What the connections ask of those who live here."""

    def hello(self, fast_path: FastPath | None) -> bytes:
        """How this node introduces itself."""
        ...

    def welcome(self, peer: NodeId, greeting: bytes) -> FastPath | None:
        """Raises Refused or PeerError where the peer may not be in. Returns its offer of a fast path."""
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
        """The last connection to a member has ended, other than by being idle."""
        ...


class Peers:
    def __init__(self, transport: Transport, household: Household, clock: Clock) -> None:
        self._transport = transport
        self._household = household
        self._clock = clock
        self._connections: dict[NodeId, Connection] = {}
        self._dialling: defaultdict[NodeId, asyncio.Lock] = defaultdict(asyncio.Lock)
        self._redial_at: dict[NodeId, float] = {}
        self._used: dict[NodeId, float] = {}
        self._open_streams: defaultdict[NodeId, int] = defaultdict(int)
        self._tasks: asyncio.TaskGroup
        self.protocol_errors = 0
        """How often peers broke the protocol."""

    def __repr__(self) -> str:
        return f"<Peers {', '.join(short(peer) for peer in self._connections)}>"

    async def run(self) -> None:
        """Let peers in until cancelled, or until the transport has been closed."""
        async with asyncio.TaskGroup() as self._tasks:
            with contextlib.suppress(Unreachable):
                while True:
                    connection = await self._transport.accept()
                    self._tasks.create_task(self._receive(connection), name=f"from {short(connection.peer)}")

    def connected(self) -> tuple[NodeId, ...]:
        return tuple(self._connections)

    def round_trip_s(self, peer: NodeId) -> float | None:
        connection = self._connections.get(peer)
        return connection.round_trip_s if connection else None

    def send(self, peer: NodeId, datagram: bytes) -> None:
        """As a datagram does: it may be lost, for example while the peer cannot be reached."""
        connection = self._connections.get(peer)
        if connection is not None:
            self._used[peer] = self._clock.monotonic()
            connection.send_datagram(datagram)
        elif not self._dialling[peer].locked() and self._may_dial(peer):
            self._tasks.create_task(self._dial_and_send(peer, datagram), name=f"dial {short(peer)}")

    @asynccontextmanager
    async def stream(self, peer: NodeId, kind: Kind) -> AsyncGenerator[Stream]:
        """Raises Unreachable; Refused where the peer does not take this node for a member."""
        connection = await self._connect(peer)
        self._open_streams[peer] += 1
        try:
            async with connection.stream(kind) as stream:
                yield stream
        finally:
            self._let_go(peer)

    def close(self, peer: NodeId, reason: str) -> None:
        """Ends the connection to a peer, if there is one: it is dead, or out of the mesh."""
        connection = self._connections.pop(peer, None)
        if connection is not None:
            connection.close(reason)

    async def _dial_and_send(self, peer: NodeId, datagram: bytes) -> None:
        with contextlib.suppress(Unreachable, Refused):
            connection = await self._connect(peer)
            connection.send_datagram(datagram)

    def _may_dial(self, peer: NodeId) -> bool:
        return self._clock.monotonic() >= self._redial_at.get(peer, 0.0)

    async def _connect(self, peer: NodeId) -> Connection:
        async with self._dialling[peer]:
            known = self._connections.get(peer)
            if known is not None:
                self._used[peer] = self._clock.monotonic()
                return known
            try:
                connection = await self._dial(peer)
            except (Unreachable, Refused) as error:
                self._redial_at[peer] = self._clock.monotonic() + REDIAL_SECONDS_MAX
                if isinstance(error, Refused):
                    self._household.refused(peer, str(error))
                raise
            self._tasks.create_task(self._serve(connection), name=f"with {short(peer)}")
            return connection

    async def _dial(self, peer: NodeId) -> Connection:
        connection = await self._transport.connect(peer, self._household.addresses_of(peer))
        try:
            async with asyncio.timeout(CONNECT_SECONDS_MAX), connection.stream(Kind.HELLO) as stream:
                await stream.send(self._household.hello(connection.fast_path))
                await stream.finish()
                answer = await stream.receive()
            if answer is None:
                raise PeerError("the peer said nothing to our hello")
            self._take_in(connection, self._household.welcome(peer, answer))
        except TimeoutError:
            connection.close("no answer to hello")
            raise Unreachable(f"{short(peer)} did not answer our hello") from None
        except PeerError as error:
            self._count(peer, error)
            connection.close(str(error))
            raise Unreachable(str(error)) from error
        except BaseException as error:
            connection.close(str(error) or "cancelled")
            raise
        return connection

    def _take_in(self, connection: Connection, offer: FastPath | None) -> None:
        connection.trust()
        if offer is not None:
            connection.use_fast_path(offer)
        self._connections[connection.peer] = connection  # the newest: an older one may be dead already
        self._used[connection.peer] = self._clock.monotonic()
        self._redial_at.pop(connection.peer, None)

    async def _receive(self, connection: Connection) -> None:
        try:
            async with asyncio.timeout(STRANGER_SECONDS_MAX):
                offer = await self._get_acquainted(connection)
        except (Unreachable, TimeoutError) as error:
            connection.close(str(error) or "no certificate was shown in time")
        except (Refused, PeerError) as error:
            if isinstance(error, PeerError):
                self._count(connection.peer, error)
            connection.close(str(error))
        else:
            self._take_in(connection, offer)
            await self._serve(connection)

    async def _get_acquainted(self, connection: Connection) -> FastPath | None:
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

    async def _return_hello(self, connection: Connection, stream: Stream) -> FastPath | None:
        hello = await stream.receive()
        try:
            offer = self._household.welcome(connection.peer, hello or b"")
        except Refused as refused:
            await stream.refuse(str(refused))
            raise
        await stream.send(self._household.hello(connection.fast_path))
        await stream.finish()
        return offer

    async def _serve(self, connection: Connection) -> None:
        """Answer a member until the connection ends."""
        peer = connection.peer
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._take_datagrams(connection), name="datagrams")
                tasks.create_task(self._close_when_idle(connection), name="idle")
                while True:
                    stream = await connection.accept()
                    tasks.create_task(self._answer(stream), name=stream.kind.name.lower())
        except* Unreachable:
            reason = await connection.wait_closed()
            self._forget(connection)
            if peer not in self._connections and IDLE not in reason:
                self._household.lost(peer, reason)
        finally:
            self._forget(connection)

    def _forget(self, connection: Connection) -> None:
        connection.close("done")
        if self._connections.get(connection.peer) is connection:
            del self._connections[connection.peer]

    async def _answer(self, stream: Stream) -> None:
        peer = stream.peer
        self._open_streams[peer] += 1
        try:
            if stream.kind in (Kind.HELLO, Kind.JOIN):
                await stream.refuse("You are a member already.")
            else:
                await self._household.answer(stream)
        except PeerError as error:
            self._count(peer, error)
        except (Unreachable, Refused):
            pass  # the peer went away, or did not want the answer: that is its right
        finally:
            await stream.close()
            self._let_go(peer)

    async def _take_datagrams(self, connection: Connection) -> None:
        while True:
            datagram = await connection.receive_datagram()
            self._used[connection.peer] = self._clock.monotonic()
            try:
                self._household.receive(connection.peer, datagram)
            except PeerError as error:
                self._count(connection.peer, error)

    async def _close_when_idle(self, connection: Connection) -> None:
        peer = connection.peer
        while True:
            await asyncio.sleep(IDLE_CHECKS_APART_S)
            unused_s = self._clock.monotonic() - self._used[peer]
            if self._open_streams[peer] == 0 and unused_s > IDLE_SECONDS_MAX:
                connection.close(IDLE)

    def _let_go(self, peer: NodeId) -> None:
        self._open_streams[peer] -= 1
        self._used[peer] = self._clock.monotonic()

    def _count(self, peer: NodeId, error: PeerError) -> None:
        self.protocol_errors += 1
        logger.warning("%s broke the protocol: %s", short(peer), error)
