"""Messages between members as datagrams: one byte of kind, then a MessagePack array.

Arrays are shorter than maps and still grow at their ends: a decoder passes over fields that it does not know.
Node ids travel as their 32 bytes. `docs/protocols/gossip.md` is the description for others.
"""

from dataclasses import dataclass
from enum import IntEnum
from typing import Annotated

import msgspec

from mesh_llm.mesh.admission.signatures import NODE_BYTES, SIGNATURE_BYTES, node_bytes, node_id
from mesh_llm.mesh.gossip.messages import DIGEST_BYTES, Ack, Gossip, Message, Ping, PingReport, PingRequest
from mesh_llm.mesh.gossip.news import NUMBER_MAX, Health, News
from mesh_llm.mesh.transport import DATAGRAM_BYTES_MAX, PeerError


class DatagramKind(IntEnum):
    """A message whose meaning changes gets a new number; whoever does not know it passes over it."""

    PING = 1
    ACK = 2
    PING_REQUEST = 3
    PING_REPORT = 4
    GOSSIP = 5


@dataclass(frozen=True, slots=True)
class Unknown:
    """From a newer peer: passed over."""

    kind: int


Number = Annotated[int, msgspec.Meta(ge=0, le=NUMBER_MAX)]
NodeOnWire = Annotated[bytes, msgspec.Meta(min_length=NODE_BYTES, max_length=NODE_BYTES)]
_Digest = Annotated[bytes, msgspec.Meta(min_length=DIGEST_BYTES, max_length=DIGEST_BYTES)]


class NewsOnWire(msgspec.Struct, array_like=True, frozen=True):
    node: NodeOnWire
    incarnation: Number
    health: Health
    version: Number
    signature: Annotated[bytes, msgspec.Meta(max_length=SIGNATURE_BYTES)] = b""


class _Exchange(msgspec.Struct, array_like=True, frozen=True):
    """Ping and Ack."""

    sequence: Number
    incarnation: Number
    version: Number
    digest: _Digest
    busy: Number
    news: list[NewsOnWire] = []


class _Request(msgspec.Struct, array_like=True, frozen=True):
    """PingRequest and PingReport."""

    sequence: Number
    target: NodeOnWire


_exchanges = msgspec.msgpack.Decoder(_Exchange)
_requests = msgspec.msgpack.Decoder(_Request)
_gossips = msgspec.msgpack.Decoder(list[NewsOnWire])
_encoder = msgspec.msgpack.Encoder()

NEWS_BYTES_MAX = 1 + (2 + NODE_BYTES) + 9 + 1 + 9
"""Array, node, incarnation, health, version."""
LEAVE_BYTES_MAX = NEWS_BYTES_MAX + 2 + SIGNATURE_BYTES
HEADER_BYTES_MAX = 1 + 1 + 4 * 9 + (2 + DIGEST_BYTES) + 3
"""Kind, array, four numbers, digest, the news' array: what a ping takes without its news."""
NEWS_ROOM_BYTES = DATAGRAM_BYTES_MAX - HEADER_BYTES_MAX
"""For news, in any message."""


def bytes_of(news: News) -> int:
    """That it takes at most."""
    return LEAVE_BYTES_MAX if news.signature else NEWS_BYTES_MAX


def encode(message: Message) -> bytes:
    """At most DATAGRAM_BYTES_MAX bytes, if its news take NEWS_ROOM_BYTES at most."""
    match message:
        case Ping():
            return _encoded(DatagramKind.PING, _exchange(message))
        case Ack():
            return _encoded(DatagramKind.ACK, _exchange(message))
        case PingRequest(sequence, target):
            return _encoded(DatagramKind.PING_REQUEST, [sequence, node_bytes(target)])
        case PingReport(sequence, target):
            return _encoded(DatagramKind.PING_REPORT, [sequence, node_bytes(target)])
        case Gossip(news):
            return _encoded(DatagramKind.GOSSIP, [news_on_wire(item) for item in news])


def decode(data: bytes) -> Message | Unknown:
    """Raises PeerError for what no version may send."""
    if not 2 <= len(data) <= DATAGRAM_BYTES_MAX:
        raise PeerError(f"A datagram of {len(data)} bytes: 2 to {DATAGRAM_BYTES_MAX} are allowed.")
    try:
        return _decoded(data[0], memoryview(data)[1:])
    except (msgspec.MsgspecError, RecursionError, ValueError) as error:
        raise PeerError(f"A datagram that cannot be read: {error}") from None


def news_on_wire(news: News) -> list[object]:
    fields: list[object] = [node_bytes(news.node), news.incarnation, int(news.health), news.version]
    return [*fields, news.signature] if news.signature else fields


def news_from_wire(news: NewsOnWire) -> News:
    """Raises PeerError where a leave is not signed."""
    signed = news.health is Health.LEFT
    if len(news.signature) != (SIGNATURE_BYTES if signed else 0):
        raise PeerError(f"News of health {news.health.name} with a signature of {len(news.signature)} bytes.")
    return News(node_id(news.node), news.incarnation, news.health, news.version, news.signature)


def _encoded(kind: DatagramKind, body: object) -> bytes:
    return bytes((kind,)) + _encoder.encode(body)


def _exchange(message: Ping | Ack) -> list[object]:
    news = [news_on_wire(item) for item in message.news]
    return [message.sequence, message.incarnation, message.version, message.digest, message.busy, news]


def _decoded(kind: int, body: memoryview) -> Message | Unknown:
    match kind:
        case DatagramKind.PING | DatagramKind.ACK:
            said = _exchanges.decode(body)
            news = tuple(news_from_wire(item) for item in said.news)
            build = Ping if kind == DatagramKind.PING else Ack
            return build(said.sequence, said.incarnation, said.version, said.digest, said.busy, news)
        case DatagramKind.PING_REQUEST | DatagramKind.PING_REPORT:
            request = _requests.decode(body)
            ask = PingRequest if kind == DatagramKind.PING_REQUEST else PingReport
            return ask(request.sequence, node_id(request.target))
        case DatagramKind.GOSSIP:
            return Gossip(tuple(news_from_wire(item) for item in _gossips.decode(body)))
        case _:
            return Unknown(kind)
