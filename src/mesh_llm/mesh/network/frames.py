"""The bytes of a stream cut into frames: one byte of type, four of length (big-endian), the payload.

Pure; `streams.py` is what sends and receives them, `docs/protocols/streams.md` the description for others.
An end is said in a frame of its own, because a transport's end of bytes may also be a break. Knows nothing
of what the payloads mean.
"""

from collections import deque
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

SMALL_BYTES = 16 * 1024
"""Pieces below this are joined with those before them that are no larger: a frame that trickles in byte by
byte must not cost an object a byte."""


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
    """Bytes in as they come, frames out as they are whole: each byte is copied once. Holds one frame and one
    piece at most, if it is emptied before it is fed again."""

    def __init__(self) -> None:
        self._pieces: deque[bytes] = deque()
        self._used = 0
        """Bytes of the first piece."""
        self._size = 0
        """Bytes left in all pieces."""
        self._head: tuple[int, int] | None = None

    def feed(self, piece: bytes) -> None:
        if not piece:
            return
        self._size += len(piece)
        while self._pieces and len(self._pieces[-1]) <= len(piece) < SMALL_BYTES:
            piece = self._pieces.pop() + piece
        self._pieces.append(piece)

    def next(self) -> Frame | None:
        """None until more has been fed. Raises PeerError where no peer may send this; nothing can follow."""
        if self._head is None and self._size >= HEAD.size:
            self._head = _checked(*HEAD.unpack(self._take(HEAD.size)))
        if self._head is None or self._size < self._head[1]:
            return None
        kind, size = self._head
        self._head = None
        return _frame(kind, self._take(size))

    def rest(self) -> bytes:
        """What was fed beyond the last frame."""
        return self._take(self._size)

    def _take(self, size: int) -> bytes:
        parts: list[memoryview] = []
        self._size -= size
        while size:
            piece = self._pieces[0]
            part = memoryview(piece)[self._used : self._used + size]
            parts.append(part)
            size -= len(part)
            self._used += len(part)
            if self._used == len(piece):
                self._pieces.popleft()
                self._used = 0
        return b"".join(parts)


def _checked(kind: int, size: int) -> tuple[int, int]:
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
