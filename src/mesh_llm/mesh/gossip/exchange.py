"""Frames of a gossip stream: who lives, and the adverts that one side lacks.

Two conversations, each begun by whoever opens the stream, ended by both: a `View` is answered with a `View`
(`Membership.view`, `answer_to`); an `AdvertsWanted` is answered with a `SignedAdvert` for each that is held.
Frames are one byte of kind, then MessagePack; unknown kinds are passed over.
"""

from dataclasses import dataclass
from enum import IntEnum
from typing import Annotated

import msgspec

from mesh_llm.core.ids import NodeId
from mesh_llm.mesh.admission.signatures import SIGNATURE_BYTES, node_bytes, node_id
from mesh_llm.mesh.gossip.advert import ADVERT_BYTES_MAX, SignedAdvert
from mesh_llm.mesh.gossip.news import News
from mesh_llm.mesh.gossip.wire import (
    LEAVE_BYTES_MAX,
    NewsOnWire,
    NodeOnWire,
    Unknown,
    news_from_wire,
    news_on_wire,
)
from mesh_llm.mesh.transport import PeerError

VIEW_MEMBERS_MAX = 2000
"""A thousand members, and a thousand that have gone."""
WANTED_MAX = 64
"""Of one exchange: 4 MiB of adverts at most, 64 kB as a rule."""
FRAME_BYTES_MAX = max(VIEW_MEMBERS_MAX * LEAVE_BYTES_MAX, ADVERT_BYTES_MAX) + 1024


class FrameKind(IntEnum):
    VIEW = 1
    ADVERTS_WANTED = 2
    ADVERT = 3


@dataclass(frozen=True, slots=True)
class View:
    members: tuple[News, ...]


@dataclass(frozen=True, slots=True)
class AdvertsWanted:
    nodes: tuple[NodeId, ...]


Frame = View | AdvertsWanted | SignedAdvert


class _AdvertOnWire(msgspec.Struct, array_like=True, frozen=True):
    body: Annotated[bytes, msgspec.Meta(max_length=ADVERT_BYTES_MAX)]
    signature: Annotated[bytes, msgspec.Meta(min_length=SIGNATURE_BYTES, max_length=SIGNATURE_BYTES)]


_views = msgspec.msgpack.Decoder(Annotated[list[NewsOnWire], msgspec.Meta(max_length=VIEW_MEMBERS_MAX)])
_wishes = msgspec.msgpack.Decoder(Annotated[list[NodeOnWire], msgspec.Meta(max_length=WANTED_MAX)])
_adverts = msgspec.msgpack.Decoder(_AdvertOnWire)
_encoder = msgspec.msgpack.Encoder()


def encode(frame: Frame) -> bytes:
    match frame:
        case View(members):
            return _encoded(FrameKind.VIEW, [news_on_wire(news) for news in members[:VIEW_MEMBERS_MAX]])
        case AdvertsWanted(nodes):
            return _encoded(FrameKind.ADVERTS_WANTED, [node_bytes(node) for node in nodes])
        case SignedAdvert(body, signature):
            return _encoded(FrameKind.ADVERT, [body, signature])


def decode(data: bytes) -> Frame | Unknown:
    """Raises PeerError for what no version may send."""
    if not 2 <= len(data) <= FRAME_BYTES_MAX:
        raise PeerError(f"A gossip frame of {len(data)} bytes: 2 to {FRAME_BYTES_MAX} are allowed.")
    try:
        return _decoded(data[0], memoryview(data)[1:])
    except (msgspec.MsgspecError, RecursionError, ValueError) as error:
        raise PeerError(f"A gossip frame that cannot be read: {error}") from None


def _encoded(kind: FrameKind, body: object) -> bytes:
    return bytes((kind,)) + _encoder.encode(body)


def _decoded(kind: int, body: memoryview) -> Frame | Unknown:
    match kind:
        case FrameKind.VIEW:
            return View(tuple(news_from_wire(news) for news in _views.decode(body)))
        case FrameKind.ADVERTS_WANTED:
            return AdvertsWanted(tuple(node_id(raw) for raw in _wishes.decode(body)))
        case FrameKind.ADVERT:
            advert = _adverts.decode(body)
            return SignedAdvert(advert.body, advert.signature)
        case _:
            return Unknown(kind)
