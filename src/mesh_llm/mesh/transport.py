"""What the mesh asks of a network: verified peers, framed streams, datagrams that may get lost.

`iroh_transport.py` is the real one, `memory_transport.py` its twin for tests and simulations; both pass
`tests/mesh/transport_contract.py`. Nothing here knows who may be in a mesh: that is `peers.py`'s business.
"""

from collections import Counter
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Protocol

from mesh_llm.core.ids import NodeId
from mesh_llm.core.quantities import MIB

FRAME_BYTES_MAX = 1 * MIB
"""Of every kind: what is larger travels in pieces."""

DATAGRAM_BYTES_MAX = 1100
"""QUIC guarantees 1,162 bytes before it has measured the path (iroh 1.2.0)."""

CONNECT_SECONDS_MAX = 10.0
"""Several round trips and retries over a relay; iroh itself would try for 30 s."""

SILENCE_SECONDS_MAX = 4.0
"""A connection with open streams that brings nothing for this long is closed: its peer is gone."""


class Unreachable(Exception):
    """The peer cannot be reached, or a stream to it broke. Another try, or another node, may do."""


class NotWanted(Unreachable):
    """The peer reads no more of this stream. What it has said can still be received: often that is why."""


class PeerError(Exception):
    """The peer broke the protocol. Its stream or connection is closed and counted; nobody crashes."""


class Refused(Exception):
    """The peer understood and said no; the text is its reason."""


class Kind(IntEnum):
    """What a stream is for: the first byte of its first frame; the second is the version."""

    HELLO = 1
    JOIN = 2
    GOSSIP = 3
    NOTICE = 4
    TUNNEL = 5
    RECORDS = 6
    STAGE = 7
    """A lease of one stage of a split model: it lives as long as the stream."""
    RING = 8
    """Bytes of a split model's ring, from one stage to the next."""
    BYTES = 9
    """Ranges of model files."""
    RANKING = 10
    """Which experts of a mixture are best, as somebody has measured them."""


VERSIONS: dict[Kind, int] = dict.fromkeys(Kind, 1)
"""Spoken here. A stream of another version is refused with the one that is spoken."""


@dataclass(frozen=True, slots=True)
class Traffic:
    """Bytes in the frames of all streams of a node since its start. Datagrams are not counted."""

    sent: Counter[Kind] = field(default_factory=Counter[Kind])
    received: Counter[Kind] = field(default_factory=Counter[Kind])
    """Without the first two bytes of each stream, which say its kind; those count where they are sent."""


@dataclass(frozen=True, slots=True)
class Addresses:
    """Where a node may be reached."""

    direct: tuple[str, ...] = ()
    """`192.168.1.5:51234`, `[2001:db8::5]:51234`."""
    relay: str | None = None
    """URL of the relay that the node keeps a connection to."""


@dataclass(frozen=True, slots=True)
class PublicRelays:
    """Those that the makers of iroh run for everybody. They see who speaks to whom, never what."""


@dataclass(frozen=True, slots=True)
class OwnRelays:
    urls: tuple[str, ...]
    """`https://relay.example.org`; one at least."""


@dataclass(frozen=True, slots=True)
class NoRelays:
    """Only peers that can be reached directly."""


Relays = PublicRelays | OwnRelays | NoRelays


@dataclass(frozen=True, slots=True)
class FastPath:
    """A node's offer to be reached by TLS over TCP."""

    addresses: tuple[str, ...]
    """`192.168.1.5:40123`"""
    certificate: bytes
    """DER, self-signed with the node's own key: its public key is the node's id."""


class Stream(Protocol):
    """Frames both ways, in order; each side ends its own direction. Leave the context to let go of it:
    what is not finished by then is broken off, and the peer sees that."""

    @property
    def peer(self) -> NodeId: ...

    @property
    def kind(self) -> Kind: ...

    async def send(self, frame: bytes) -> None:
        """1 to FRAME_BYTES_MAX bytes. Waits while the peer is slow. Raises Unreachable when broken off,
        NotWanted where the peer listens no more."""
        ...

    async def receive(self) -> bytes | None:
        """The next frame; None after the last. Raises Unreachable when the stream broke off before its end,
        Refused where the peer said no, PeerError where it broke the rules."""
        ...

    async def finish(self) -> None:
        """No more frames from this side. No matter whether the peer still listens."""
        ...

    async def refuse(self, reason: str) -> None:
        """Answer with a refusal (at most 1,000 characters are sent) and end the stream."""
        ...

    async def close(self) -> None:
        """Let go of it, at any time and more than once."""
        ...


class Connection(Protocol):
    """To one peer, whose id the transport has verified."""

    @property
    def peer(self) -> NodeId: ...

    def stream(self, kind: Kind) -> AbstractAsyncContextManager[Stream]:
        """Opens a stream; the kind has been sent when the body begins. Raises Unreachable."""
        ...

    async def accept(self) -> Stream:
        """The next stream that the peer opened, its kind and version read and known; unknown ones have been
        refused politely. Who takes it closes it. Raises Unreachable once the connection has ended."""
        ...

    def send_datagram(self, data: bytes) -> None:
        """At most DATAGRAM_BYTES_MAX bytes; lost without a word where the network is."""
        ...

    async def receive_datagram(self) -> bytes:
        """Raises Unreachable once the connection has ended."""
        ...

    def trust(self) -> None:
        """The peer is a member: let it open as many streams as work needs (strangers may open few)."""
        ...

    @property
    def fast_path(self) -> FastPath | None:
        """What this side offers, if anything."""
        ...

    def use_fast_path(self, offer: FastPath) -> None:
        """Streams may take the peer's offer from now on, where it can be reached; else they go as before."""
        ...

    @property
    def round_trip_s(self) -> float | None:
        """Measured lately; None before the first measurement."""
        ...

    @property
    def is_relayed(self) -> bool:
        """Whether its packets take the way over a relay now. Streams may still have a fast path."""
        ...

    async def wait_closed(self) -> str:
        """Returns why the connection has ended."""
        ...

    def close(self, reason: str) -> None:
        """Ends it at once; the peer is told."""
        ...


class Transport(Protocol):
    @property
    def me(self) -> NodeId: ...

    @property
    def addresses(self) -> Addresses:
        """Where others may reach this node, as far as it knows by now."""
        ...

    @property
    def traffic(self) -> Traffic:
        """Counted up as it goes."""
        ...

    async def connect(self, peer: NodeId, addresses: Addresses) -> Connection:
        """Raises Unreachable within CONNECT_SECONDS_MAX."""
        ...

    async def accept(self) -> Connection:
        """The next connection from outside. Raises Unreachable once the transport is closed."""
        ...

    async def close(self) -> None:
        """Tells every peer, and returns when they may have heard it."""
        ...
