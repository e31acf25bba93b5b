"""MessagePack from strangers: the size is checked before anything is read, the types while it is.

Unknown fields are passed over, so that newer peers may say more.
"""

from typing import TypeVar

import msgspec

from mesh_llm.mesh.transport import PeerError

T = TypeVar("T")

_encoder = msgspec.msgpack.Encoder()


def encode(value: object) -> bytes:
    return _encoder.encode(value)


def decode(data: bytes, kind: type[T], *, bytes_max: int, what: str) -> T:
    """Raises PeerError, and nothing else whatever the bytes are. `what` is named in the message."""
    if len(data) > bytes_max:
        raise PeerError(f"{what} of {len(data)} bytes: {bytes_max} are allowed.")
    try:
        return msgspec.msgpack.decode(data, type=kind)
    except (msgspec.MsgspecError, RecursionError, ValueError) as error:
        raise PeerError(f"{what} that cannot be read: {error}") from None
