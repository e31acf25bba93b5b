"""The bytes of a stream cut into frames: one byte of type, four of length (big-endian), the payload.

Pure; `streams.py` is what sends and receives them, `docs/protocols/streams.md` the description for others.
An end is said in a frame of its own, because a transport's end of bytes may also be a break. Knows nothing
of what the payloads mean.
"""

from dataclasses import dataclass
from struct import Struct

from mesh_llm.mesh.transport import FRAME_BYTES_MAX, PeerError

DATA, END, REFUSED = 1, 2, 3

REASON_CHARACTERS_MAX = 1000
"""A paragraph: what is wrong and what to do."""

REASON_BYTES_MAX = 4 * REASON_CHARACTERS_MAX
"""The longest that so many characters can be in UTF-8."""

BYTES_MAX = {DATA: FRAME_BYTES_MAX, END: 0, REFUSED: REASON_BYTES_MAX}

HEAD = Struct(">BI")


@dataclass(frozen=True, slots=True)
class Data:
    payload: bytes


@dataclass(frozen=True, slots=True)
class End:
    """Nothing more comes, and nothing is missing."""


@dataclass(frozen=True, slots=True)
class Refusal:
    """The other side understood and says no; nothing more comes."""

    reason: str


Frame = Data | End | Refusal

END_FRAME = HEAD.pack(END, 0)


def data_frame(payload: bytes) -> bytes:
    """Raises ValueError for a payload that is empty or over the limit."""
    if not 0 < len(payload) <= FRAME_BYTES_MAX:
        raise ValueError(f"a frame holds 1 to {FRAME_BYTES_MAX} bytes, not {len(payload)}")
    return HEAD.pack(DATA, len(payload)) + payload


def refusal_frame(reason: str) -> bytes:
    """Sends the first REASON_CHARACTERS_MAX characters."""
    text = reason[:REASON_CHARACTERS_MAX].encode(errors="replace")
    return HEAD.pack(REFUSED, len(text)) + text


class FrameDecoder:
    """Bytes in as they come, frames out as they are whole. Holds one frame and one piece at most, if it is
    emptied before it is fed again."""

    def __init__(self) -> None:
        self._held = bytearray()
        self._head: tuple[int, int] | None = None

    def feed(self, piece: bytes) -> None:
        self._held += piece

    def next(self) -> Frame | None:
        """None until more has been fed. Raises PeerError, for good, where no peer may send this."""
        head = self._head = self._head or self._read_head()
        if head is None or len(self._held) < HEAD.size + head[1]:
            return None
        kind, size = head
        with memoryview(self._held) as view:
            payload = bytes(view[HEAD.size : HEAD.size + size])
        del self._held[: HEAD.size + size]
        self._head = None
        return _frame(kind, payload)

    def rest(self) -> bytes:
        """What was fed beyond the last frame."""
        return bytes(self._held)

    def _read_head(self) -> tuple[int, int] | None:
        if len(self._held) < HEAD.size:
            return None
        kind, size = HEAD.unpack_from(self._held)
        if kind not in BYTES_MAX:
            raise PeerError(f"a frame of unknown type {kind}")
        if size > BYTES_MAX[kind] or (kind == DATA and size == 0):
            raise PeerError(f"a frame of type {kind} with {size} bytes: at most {BYTES_MAX[kind]} may come")
        return kind, size


def _frame(kind: int, payload: bytes) -> Frame:
    if kind == DATA:
        return Data(payload)
    if kind == END:
        return End()
    try:
        return Refusal(payload.decode())
    except UnicodeDecodeError as error:
        raise PeerError("a refusal whose reason is no UTF-8") from error
