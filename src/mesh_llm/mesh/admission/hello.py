"""HELLO: how members introduce themselves on a new connection, each way one frame.

Counterpart: the other side's HELLO, or a refusal whose text begins with a `Refusal`. Whether the certificate
holds is `admission.py`'s question; what the sender says of itself is asked for later, by gossip.
"""

from dataclasses import dataclass, field, replace
from enum import StrEnum

from mesh_llm.mesh import addresses, bounded
from mesh_llm.mesh.admission.certificates import CERTIFICATE_BYTES_MAX
from mesh_llm.mesh.transport import Addresses, FastPath, PeerError

HELLO_BYTES_MAX = 64 * 1024
"""A certificate, some addresses, and room for what newer versions may add."""

VERSION_CHARACTERS_MAX = 64

FAST_PATH_CERTIFICATE_BYTES_MAX = 4096
"""A self-signed Ed25519 certificate has about 300."""


class Refusal(StrEnum):
    """Why a node that says hello is no member. Never told apart by anything but this word."""

    DAMAGED = "damaged"
    FOREIGN = "foreign"
    NOT_YOURS = "not-yours"
    EXPELLED = "expelled"

    @property
    def message(self) -> str:
        """What `Stream.refuse` sends."""
        return f"{self.value}: {_WORDS[self]}"

    @classmethod
    def of(cls, message: str) -> "Refusal | None":
        """What a peer's refusal said; None where it said something else."""
        word = message.partition(":")[0]
        return cls(word) if word in {each.value for each in cls} else None


_WORDS = {
    Refusal.DAMAGED: "the certificate cannot be read or is forged",
    Refusal.FOREIGN: "the certificate is for another mesh",
    Refusal.NOT_YOURS: "the certificate is another node's",
    Refusal.EXPELLED: "the node was removed from this mesh",
}


@dataclass(frozen=True, slots=True)
class Hello:
    certificate: bytes
    program_version: str
    fast_path: FastPath | None = None
    addresses: Addresses = field(default=Addresses())
    """Where the sender may be reached."""


def encode_hello(hello: Hello) -> bytes:
    return bounded.encode(replace(hello, addresses=addresses.tellable(hello.addresses)))


def decode_hello(frame: bytes) -> Hello:
    """Raises PeerError."""
    hello = bounded.decode(frame, Hello, bytes_max=HELLO_BYTES_MAX, what="A hello")
    if len(hello.certificate) > CERTIFICATE_BYTES_MAX or len(hello.program_version) > VERSION_CHARACTERS_MAX:
        raise PeerError("A hello with a part that is too long.")
    addresses.check(hello.addresses)
    if hello.fast_path is not None:
        addresses.check_fast_path(hello.fast_path)
        if len(hello.fast_path.certificate) > FAST_PATH_CERTIFICATE_BYTES_MAX:
            raise PeerError("A hello whose fast path has a certificate that is too long.")
    return hello
