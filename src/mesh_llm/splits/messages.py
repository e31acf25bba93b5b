"""What nodes say to each other to set up a split model: the frames of STAGE streams.

Pure; docs/protocols/stages.md is the description for others. A lease: the leader opens the stream and sends
`Assign`; the holder says how far it is, and the stage stays loaded as long as the stream lives. A survey:
`Survey`, answered by `Surveyed`. Counterparts: `hosting.py` holds stages, `surveying.py` answers surveys.
Unknown fields and messages are passed over; new fields have defaults.
"""

from collections.abc import Iterable
from typing import Annotated, cast, get_args

import msgspec
from msgspec import Meta

from mesh_llm.core.ids import NodeId
from mesh_llm.core.stages import Activations, LayerRange
from mesh_llm.mesh import bounded
from mesh_llm.mesh.admission.signatures import NODE_BYTES, node_bytes, node_id
from mesh_llm.mesh.transport import FRAME_BYTES_MAX, PeerError
from mesh_llm.models.stages.chunks import FILE_BYTES_MAX, HASH_BYTES

ID_BYTES = 16
"""Of rings and sessions: drawn at random, never used twice."""

ASSIGN_BYTES_MAX = FRAME_BYTES_MAX
"""An assignment names each file of the model; the rest is small."""

MESSAGE_BYTES_MAX = 16 * 1024

RING_HELLO_BYTES_MAX = 1024

PARTS_MAX = 1024
"""llama.cpp numbers the files of a split set with five digits; the largest published sets have some 200."""

NODES_MAX = 64
"""Stages of a ring, candidates of a survey, holders of a model."""

LAYERS_MAX = 4096
CONTEXT_MAX = 1 << 24
BATCH_MAX = 1 << 16
SEQUENCES_MAX = 4096
REASON_CHARACTERS_MAX = 1000

RingId = Annotated[bytes, Meta(min_length=ID_BYTES, max_length=ID_BYTES)]
SessionId = Annotated[bytes, Meta(min_length=ID_BYTES, max_length=ID_BYTES)]
Node = Annotated[bytes, Meta(min_length=NODE_BYTES, max_length=NODE_BYTES)]
Nodes = Annotated[tuple[Node, ...], Meta(max_length=NODES_MAX)]
Bytes = Annotated[int, Meta(ge=0, le=1 << 50)]
Fraction = Annotated[float, Meta(ge=0.0, le=1.0)]
Reason = Annotated[str, Meta(max_length=REASON_CHARACTERS_MAX)]
Root = Annotated[bytes, Meta(min_length=HASH_BYTES, max_length=HASH_BYTES)]
ModelIdentity = Annotated[str, Meta(min_length=1, max_length=128, pattern=r"^[!-~]+\Z")]
"""What two nodes that hold the same files call them; no path, no name for people."""
Seconds = Annotated[float, Meta(ge=0.0, le=3600.0)]


class Part(msgspec.Struct, frozen=True, kw_only=True):
    """One file of the model, in the order of its set."""

    name: Annotated[str, Meta(min_length=1, max_length=255, pattern=r"^[^/\\\x00-\x1f]+\Z")]
    """For people and messages: nobody opens a file by it."""
    size: Annotated[int, Meta(ge=1, le=FILE_BYTES_MAX)]
    """Bytes."""
    sha256: Annotated[str, Meta(max_length=64, pattern=r"^([0-9a-f]{64})?\Z")] = ""
    """Of the whole file; empty where the leader does not know it."""
    root: Root | None = None
    """Of its manifest (`chunks.Manifest.root`); None where the leader does not know it."""
    origin: Annotated[str, Meta(max_length=2048, pattern=r"^(https?://[!-~]+)?\Z")] = ""
    """Where it can be had in ranges; empty where nowhere but from holders."""


class Assign(msgspec.Struct, frozen=True, kw_only=True, tag="assign", tag_field="is"):
    """Leader to holder, first: hold these layers for me."""

    ring: RingId
    model: ModelIdentity
    name: Annotated[str, Meta(min_length=1, max_length=255, pattern=r"^[^\x00-\x1f\x7f-\x9f]+\Z")]
    """For people: of a model that runs whole, what requests call it."""
    parts: Annotated[tuple[Part, ...], Meta(min_length=1, max_length=PARTS_MAX)]
    holders: Nodes = ()
    """Members that hold the whole model and give ranges of it."""
    first: Annotated[int, Meta(ge=0, lt=LAYERS_MAX)]
    end: Annotated[int, Meta(ge=1, le=LAYERS_MAX)]
    stage: Annotated[int, Meta(ge=1, le=NODES_MAX)]
    """Its number in the ring, from 1; the head is 0."""
    whole: bool = False
    """These are all layers: run the model by yourself and serve it to the mesh. No `Link` follows."""
    context: Annotated[int, Meta(ge=1, le=CONTEXT_MAX)]
    """Cells of the KV cache, all sequences together."""
    sequences: Annotated[int, Meta(ge=1, le=SEQUENCES_MAX)]
    batch: Annotated[int, Meta(ge=1, le=BATCH_MAX)]
    """Rows of a step at most."""
    kv_type: Annotated[str, Meta(min_length=1, max_length=16, pattern=r"^[a-z0-9_]+\Z")]
    activations: Activations = "f32"
    memory_bytes: Bytes = 0
    """What the stage will take, as the leader predicts it; the holder predicts for itself before it loads."""

    @property
    def layers(self) -> LayerRange:
        return LayerRange(self.first, self.end)


class Link(msgspec.Struct, frozen=True, kw_only=True, tag="link", tag_field="is"):
    """Leader to holder, once it is ready, and again after each `Unlinked`: a new life of the ring."""

    session: SessionId
    previous: Node
    """The only node whose RING stream is taken for this session."""
    following: Node
    """Whom this stage sends to."""
    following_stage: Annotated[int, Meta(ge=0, le=NODES_MAX)]
    """0 for the head."""


class Release(msgspec.Struct, frozen=True, tag="release", tag_field="is"):
    """Leader to holder: give the stage up. The end of the stream says the same."""


class Accepted(msgspec.Struct, frozen=True, tag="accepted", tag_field="is"):
    """The memory is set aside."""


class Declined(msgspec.Struct, frozen=True, kw_only=True, tag="declined", tag_field="is"):
    """Not this lease; the stream ends."""

    reason: Reason
    memory_bytes_free: Bytes = 0


class Fetching(msgspec.Struct, frozen=True, kw_only=True, tag="fetching", tag_field="is"):
    fraction: Fraction


class Loading(msgspec.Struct, frozen=True, kw_only=True, tag="loading", tag_field="is"):
    fraction: Fraction


class Ready(msgspec.Struct, frozen=True, kw_only=True, tag="ready", tag_field="is"):
    """Loaded; waits for `Link`."""

    memory_bytes: Bytes = 0
    """What the stage's process takes."""


class Linked(msgspec.Struct, frozen=True, kw_only=True, tag="linked", tag_field="is"):
    """Both neighbours and the process are connected."""

    session: SessionId


class Unlinked(msgspec.Struct, frozen=True, kw_only=True, tag="unlinked", tag_field="is"):
    """The session is over; the stage stays loaded and waits for another `Link`."""

    session: SessionId
    reason: Reason


class Lost(msgspec.Struct, frozen=True, kw_only=True, tag="lost", tag_field="is"):
    """The stage is gone, and the lease with it; the stream ends."""

    reason: Reason


class Survey(msgspec.Struct, frozen=True, kw_only=True, tag="survey", tag_field="is"):
    """What could you hold, and how far are you from these?"""

    nodes: Nodes = ()


class RoundTrip(msgspec.Struct, frozen=True, kw_only=True):
    node: Node
    seconds: Seconds | None = None
    """None where it could not be reached or measured."""


class Surveyed(msgspec.Struct, frozen=True, kw_only=True, tag="surveyed", tag_field="is"):
    memory_bytes_free: Bytes
    """That a stage may take now."""
    weights_bytes_per_second: Annotated[float, Meta(ge=0.0, le=1e15)] = 0.0
    """How fast a token goes through weights here; 0 where it was not measured."""
    round_trips: Annotated[tuple[RoundTrip, ...], Meta(max_length=NODES_MAX)] = ()


class RingHello(msgspec.Struct, frozen=True, kw_only=True):
    """The first frame of a RING stream, from the stage before; answered by WELCOME, or refused."""

    ring: RingId
    session: SessionId
    stage: Annotated[int, Meta(ge=0, le=NODES_MAX)]
    """Of who is addressed; 0 for the head."""


WELCOME = b"\x01"
"""The answer to a `RingHello`; from then on the frames are bytes of the ring, cut anyhow."""

FromLeader = Assign | Link | Release | Survey
FromHolder = Accepted | Declined | Fetching | Loading | Ready | Linked | Unlinked | Lost | Surveyed

_FROM_LEADER = cast("type[FromLeader]", FromLeader)
_FROM_HOLDER = cast("type[FromHolder]", FromHolder)
KNOWN = frozenset(
    cast("str", each.__struct_config__.tag) for each in (*get_args(FromLeader), *get_args(FromHolder))
)


class _Kind(msgspec.Struct, frozen=True):
    kind: str = msgspec.field(name="is")


def encode(message: FromLeader | FromHolder | RingHello) -> bytes:
    return bounded.encode(message)


def decode_from_leader(frame: bytes) -> FromLeader | None:
    """None for what only later versions say. Raises PeerError."""
    if not _is_known(frame, ASSIGN_BYTES_MAX):
        return None
    said = bounded.decode(frame, _FROM_LEADER, bytes_max=ASSIGN_BYTES_MAX, what="A leader's word")
    if isinstance(said, Assign) and said.first >= said.end:
        raise PeerError(f"A stage of layers {said.first} to {said.end}: there are none.")
    return said


def decode_from_holder(frame: bytes) -> FromHolder | None:
    """None for what only later versions say. Raises PeerError."""
    if not _is_known(frame, MESSAGE_BYTES_MAX):
        return None
    return bounded.decode(frame, _FROM_HOLDER, bytes_max=MESSAGE_BYTES_MAX, what="A holder's word")


def decode_ring_hello(frame: bytes) -> RingHello:
    """Raises PeerError."""
    return bounded.decode(frame, RingHello, bytes_max=RING_HELLO_BYTES_MAX, what="A ring's hello")


def _is_known(frame: bytes, bytes_max: int) -> bool:
    return bounded.decode(frame, _Kind, bytes_max=bytes_max, what="A word about a stage").kind in KNOWN


def bytes_of(nodes: Iterable[NodeId]) -> tuple[bytes, ...]:
    return tuple(node_bytes(node) for node in nodes)


def ids_of(nodes: Iterable[bytes]) -> tuple[NodeId, ...]:
    return tuple(node_id(node) for node in nodes)


def shortened(reason: str) -> str:
    """As a message may carry it."""
    return reason[:REASON_CHARACTERS_MAX]
