"""What nodes say to each other on BYTES streams: ranges of model files, and the manifests to check them by.

Pure; docs/protocols/stages.md is the description for others. One stream is for one file: `Want` first,
answered by `Hashing` while a manifest is being made, then by `Held`; after that each `Range` is answered
with its bytes, in the order of asking, in frames of any size. A file is named by the identity of its model
and its place in the set: no path travels. Counterparts: `byte_serving.py` answers, `peer_ranges.py` asks.
"""

from dataclasses import dataclass
from typing import Annotated, cast

import msgspec
from msgspec import Meta

from mesh_llm.core.ids import NodeId
from mesh_llm.mesh import bounded
from mesh_llm.mesh.admission.signatures import SIGNATURE_BYTES, NodeKey, node_bytes, node_id, verify
from mesh_llm.mesh.transport import PeerError
from mesh_llm.models.stages.chunks import CHUNKS_MAX, FILE_BYTES_MAX, HASH_BYTES, Manifest
from mesh_llm.splits.messages import PARTS_MAX, Fraction, ModelIdentity, Node, Root

DOMAIN = b"mesh-llm manifest 1\0"

REQUEST_BYTES_MAX = 1024

HELD_BYTES_MAX = CHUNKS_MAX * HASH_BYTES + 4096
"""The hashes of the largest file, and what is said around them."""

PartNumber = Annotated[int, Meta(ge=0, lt=PARTS_MAX)]


class Want(msgspec.Struct, frozen=True, kw_only=True):
    """Asker, first: this file."""

    model: ModelIdentity
    part: PartNumber
    root: Root | None = None
    """Of the manifest that the asker has: it need not come again."""


class Range(msgspec.Struct, frozen=True, kw_only=True):
    """Asker: these chunks. Many may be asked for before the first has come."""

    first: Annotated[int, Meta(ge=0, lt=CHUNKS_MAX)]
    count: Annotated[int, Meta(ge=1, le=CHUNKS_MAX)]

    @property
    def chunks(self) -> range:
        return range(self.first, self.first + self.count)


class Hashing(msgspec.Struct, frozen=True, kw_only=True, tag="hashing", tag_field="is"):
    """Holder: the manifest is being made."""

    fraction: Fraction


class SignedManifest(msgspec.Struct, frozen=True, kw_only=True):
    signer: Node
    body: bytes
    """A `ManifestBody`, as it was signed."""
    signature: Annotated[bytes, Meta(min_length=SIGNATURE_BYTES, max_length=SIGNATURE_BYTES)]


class Held(msgspec.Struct, frozen=True, kw_only=True, tag="held", tag_field="is"):
    """Holder: here it is. Ranges may be asked for."""

    manifest: SignedManifest | None = None
    """None where the asker has it."""


class ManifestBody(msgspec.Struct, frozen=True, kw_only=True):
    model: ModelIdentity
    part: PartNumber
    size: Annotated[int, Meta(ge=1, le=FILE_BYTES_MAX)]
    hashes: Annotated[bytes, Meta(max_length=CHUNKS_MAX * HASH_BYTES)]


@dataclass(frozen=True, slots=True)
class Vouched:
    """A manifest and who vouches for it."""

    signer: NodeId
    manifest: Manifest


Answer = Hashing | Held
_ANSWER = cast("type[Answer]", Answer)


def encode(message: Want | Range | Answer) -> bytes:
    return bounded.encode(message)


def decode_want(frame: bytes) -> Want:
    """Raises PeerError."""
    return bounded.decode(frame, Want, bytes_max=REQUEST_BYTES_MAX, what="A wish for a file")


def decode_range(frame: bytes) -> Range:
    """Raises PeerError."""
    return bounded.decode(frame, Range, bytes_max=REQUEST_BYTES_MAX, what="A wish for a range")


def decode_answer(frame: bytes) -> Answer:
    """Raises PeerError."""
    return bounded.decode(frame, _ANSWER, bytes_max=HELD_BYTES_MAX, what="An answer about a file")


def sign_manifest(key: NodeKey, model: str, part: int, manifest: Manifest) -> SignedManifest:
    """Only who holds the whole file may do this."""
    body = bounded.encode(
        ManifestBody(model=model, part=part, size=manifest.file_bytes, hashes=manifest.hashes)
    )
    return SignedManifest(signer=node_bytes(key.node), body=body, signature=key.sign(DOMAIN, body))


def check_manifest(signed: SignedManifest, model: str, part: int) -> Vouched:
    """Whether the signer is a member is the caller's to check. Raises PeerError."""
    signer = node_id(signed.signer)
    if not verify(signer, DOMAIN, signed.body, signed.signature):
        raise PeerError("A manifest whose signature is wrong.")
    said = bounded.decode(signed.body, ManifestBody, bytes_max=HELD_BYTES_MAX, what="A manifest")
    if (said.model, said.part) != (model, part):
        raise PeerError("A manifest of another file than the one that was asked for.")
    try:
        return Vouched(signer, Manifest(said.size, said.hashes))
    except ValueError as error:
        raise PeerError(f"A manifest that is none: {error}") from None
