"""What a node says of itself, signed with its own key, so that it may come from anybody.

Knows nothing of how adverts travel: `adverts.py` decides what is fetched from whom. The certificate is
opaque here; whoever takes an advert in has it checked (`admission.py`).
"""

from collections.abc import Callable
from dataclasses import dataclass, field

from mesh_llm.core.ids import NodeId
from mesh_llm.core.offers import ServedOffer
from mesh_llm.mesh.transport import Addresses

DOMAIN = b"mesh-llm advert 1\0"

ADVERT_BYTES_MAX = 64 * 1024
MODELS_MAX = 64
ON_DISK_MAX = 500
NAME_CHARACTERS_MAX = 200
"""The longest names in public hubs have about 100."""


@dataclass(frozen=True, slots=True)
class Advert:
    """New fields have defaults: peers may be older, and ignore what they do not know."""

    node: NodeId
    version: int
    """Grows with each change; the newest wins."""
    name: str = ""
    """For people."""
    program_version: str = ""
    role: str = "server"
    """`server`, `client` (serves nothing), `standby`; newer peers may know more."""
    addresses: Addresses = field(default_factory=Addresses)
    certificate: bytes = b""
    memory_bytes: int = 0
    """That models may use on the node's machine."""
    models: tuple[ServedOffer, ...] = ()
    on_disk: tuple[str, ...] = ()
    """Names of models that it could serve without a download."""
    started: int = 0
    """Seconds since the epoch."""


@dataclass(frozen=True, slots=True)
class SignedAdvert:
    body: bytes
    """An encoded Advert: what was signed is kept as it came, with fields that we do not know."""
    signature: bytes


Sign = Callable[[bytes], bytes]
"""Of an advert's body: `NodeKey.sign` with DOMAIN."""


def sign_advert(advert: Advert, sign: Sign) -> SignedAdvert:
    """Raises ValueError where the advert is larger than others would take: shorten it first."""
    raise NotImplementedError


def read(advert: SignedAdvert) -> Advert:
    """Raises PeerError for a forgery, and for what is larger than the limits."""
    raise NotImplementedError
