"""What two gateways say to each other over a stream of the mesh (docs/protocols/tunnel.md). Pure.

A question is a head, then its body in frames, `size` bytes together. The answer is a head, then the body in
frames as it comes, then the end. No header of the client's travels, so no key of its can.
"""

from collections.abc import Iterator

import msgspec

from mesh_llm.core.limits import REQUEST_BODY_BYTES_MAX
from mesh_llm.mesh import bounded
from mesh_llm.mesh.transport import PeerError

HEAD_BYTES_MAX = 4096
"""Ours have about a hundred bytes; newer versions may say more."""

BODY_FRAME_BYTES = 256 * 1024
"""Large enough that framing costs nothing, small enough that a slow link shares its turns."""

TEXT_CHARACTERS_MAX = 512
"""Of a path, a content type and a model's name."""

RETRY_AFTER_S_MAX = 3600


class QuestionHead(msgspec.Struct, frozen=True, kw_only=True):
    path: str
    """Of the gateway's API; always POSTed."""
    model: str
    """As the asking node resolved it: the body may say `auto`, or an alias that only the asker knows."""
    size: int
    """Bytes of the body."""


class AnswerHead(msgspec.Struct, frozen=True, kw_only=True):
    status: int
    content_type: str
    retry_after: int | None = None
    """Seconds."""
    busy: int = 0
    """Requests that the answering node has then, this one included."""


def encode(head: QuestionHead | AnswerHead) -> bytes:
    return bounded.encode(head)


def decode_question(frame: bytes | None) -> QuestionHead:
    """Raises PeerError. A body beyond bounds is the caller's to refuse, so that the asker hears why."""
    head = bounded.decode(_present(frame), QuestionHead, bytes_max=HEAD_BYTES_MAX, what="A head")
    if head.size < 0:
        raise PeerError(f"a body of {head.size} bytes")
    for said in (head.path, head.model):
        _check_text(said)
    return head


def decode_answer(frame: bytes | None) -> AnswerHead:
    """Raises PeerError."""
    head = bounded.decode(_present(frame), AnswerHead, bytes_max=HEAD_BYTES_MAX, what="A head")
    if not 200 <= head.status <= 599:
        raise PeerError(f"an answer with status {head.status}")
    _check_text(head.content_type)
    if not head.content_type.isascii():
        raise PeerError("a content type that is not ASCII")
    if head.retry_after is not None and not 0 <= head.retry_after <= RETRY_AFTER_S_MAX:
        raise PeerError(f"an answer to be asked for again in {head.retry_after} seconds")
    if head.busy < 0:
        raise PeerError(f"an answer of a node with {head.busy} requests")
    return head


def _present(frame: bytes | None) -> bytes:
    if frame is None:
        raise PeerError("a tunnel that ended before its head")
    return frame


def _check_text(said: str) -> None:
    if len(said) > TEXT_CHARACTERS_MAX or not said.isprintable():
        raise PeerError("a head with text that is too long or not printable")


def frames_of(body: bytes) -> Iterator[bytes]:
    for start in range(0, len(body), BODY_FRAME_BYTES):
        yield body[start : start + BODY_FRAME_BYTES]


class BodyReader:
    """Collects the frames of a question's body; takes no more than was announced."""

    def __init__(self, size: int) -> None:
        self._left = size
        self._parts: list[bytes] = []

    @property
    def complete(self) -> bool:
        return self._left == 0

    def take(self, frame: bytes | None) -> None:
        """Raises PeerError for too much or too little."""
        if frame is None:
            raise PeerError(f"a body that ends {self._left} bytes too early")
        if not 0 < len(frame) <= self._left:
            raise PeerError("a body with an empty frame, or longer than announced")
        self._left -= len(frame)
        self._parts.append(frame)

    def body(self) -> bytes:
        return b"".join(self._parts)


def fits(size: int) -> bool:
    return size <= REQUEST_BODY_BYTES_MAX
