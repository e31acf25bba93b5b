"""What STAGE, RING and BYTES streams say: exact, tolerant of newer versions, and safe against anybody."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import msgspec
import pytest

from mesh_llm.core.stages import LayerRange
from mesh_llm.mesh.transport import FRAME_BYTES_MAX, PeerError
from mesh_llm.splits import byte_messages, messages
from mesh_llm.splits.byte_messages import Hashing, Held, Range, SignedManifest, Want, sign_manifest
from mesh_llm.splits.messages import (
    Accepted,
    Declined,
    Fetching,
    FromHolder,
    FromLeader,
    Link,
    Linked,
    Loading,
    Lost,
    Part,
    Ready,
    Release,
    RingHello,
    RoundTrip,
    Survey,
    Surveyed,
    Unlinked,
    decode_from_holder,
    decode_from_leader,
    encode,
)
from tests.mesh.members import key
from tests.mesh.mutations import survives
from tests.models.stages.test_chunks import manifest_of
from tests.splits.landlords import an_order

ID = bytes(range(16))
NODE = bytes.fromhex(key(1).node)

FROM_LEADER: list[FromLeader] = [
    an_order(),
    an_order(whole=True),
    an_order(
        parts=(
            Part(name="a-00001-of-00002.gguf", size=10**9, sha256="a" * 64, root=bytes(32)),
            Part(name="a-00002-of-00002.gguf", size=5, origin="https://huggingface.co/a/b/resolve/c/d.gguf"),
        ),
        activations="f16",
    ),
    Link(session=ID, previous=NODE, following=NODE, following_stage=0),
    Release(),
    Survey(),
    Survey(nodes=(NODE, bytes(32))),
]
FROM_HOLDER: list[FromHolder] = [
    Accepted(),
    Declined(reason="no", memory_bytes_free=5),
    Fetching(fraction=0.25),
    Loading(fraction=1.0),
    Ready(memory_bytes=10**12),
    Linked(session=ID),
    Unlinked(session=ID, reason="gone"),
    Lost(reason="killed by SIGKILL"),
    Surveyed(
        memory_bytes_free=10**9,
        weights_bytes_per_second=2.5e10,
        round_trips=(RoundTrip(node=NODE, seconds=0.02), RoundTrip(node=NODE)),
    ),
]
MANIFEST = manifest_of(bytes(200_000))
SIGNED = sign_manifest(key(1), "sha256:5df1", 0, MANIFEST)


@pytest.mark.parametrize("message", FROM_LEADER)
def test_what_a_leader_says_arrives_as_it_was_said(message: FromLeader):
    assert decode_from_leader(encode(message)) == message


@pytest.mark.parametrize("message", FROM_HOLDER)
def test_what_a_holder_says_arrives_as_it_was_said(message: FromHolder):
    assert decode_from_holder(encode(message)) == message


def changed(message: object, **fields: object) -> bytes:
    said = msgspec.msgpack.decode(msgspec.msgpack.encode(message))
    return msgspec.msgpack.encode(said | fields)


def test_fields_and_messages_of_later_versions_are_passed_over():
    assert decode_from_leader(changed(an_order(), colour="red")) == an_order()
    assert decode_from_holder(changed(Fetching(fraction=0.5), bytes=[1, {}])) == Fetching(fraction=0.5)
    for decode in (decode_from_leader, decode_from_holder):
        assert decode(msgspec.msgpack.encode({"is": "dance", "how": 3})) is None


@pytest.mark.parametrize(
    "fields",
    [
        {"first": 5},
        {"first": 6},
        {"first": -1},
        {"end": 5000},
        {"stage": 0},
        {"stage": 65},
        {"ring": bytes(15)},
        {"ring": "x" * 16},
        {"model": ""},
        {"model": "with space"},
        {"model": "line\n"},
        {"model": "x" * 129},
        {"context": 0},
        {"context": 1 << 40},
        {"sequences": 0},
        {"batch": 1 << 20},
        {"kv_type": "f16\n"},
        {"kv_type": "../f16"},
        {"activations": "f64"},
        {"holders": [bytes(31)]},
        {"holders": [NODE] * 65},
        {"parts": []},
        {"parts": [{"name": "x", "size": 1}] * 1025},
        {"parts": [{"name": "../x", "size": 1}]},
        {"parts": [{"name": "x\x00", "size": 1}]},
        {"parts": [{"name": "x", "size": 0}]},
        {"parts": [{"name": "x", "size": 1 << 50}]},
        {"parts": [{"name": "x", "size": 1, "sha256": "A" * 64}]},
        {"parts": [{"name": "x", "size": 1, "root": bytes(31)}]},
        {"parts": [{"name": "x", "size": 1, "origin": "file:///etc/passwd"}]},
        {"parts": [{"name": "x", "size": 1, "origin": "https://a b"}]},
    ],
    ids=str,
)
def test_an_order_that_no_leader_may_give_is_refused(fields: dict[str, object]):
    with pytest.raises(PeerError):
        decode_from_leader(changed(an_order(), **fields))


@pytest.mark.parametrize("fraction", [-0.1, 1.1, float("nan"), float("inf"), "1", True])
def test_a_fraction_lies_between_nothing_and_all(fraction: object):
    with pytest.raises(PeerError):
        decode_from_holder(changed(Fetching(fraction=0.5), fraction=fraction))


def test_what_is_too_long_is_refused_before_it_is_read():
    with pytest.raises(PeerError, match="are allowed"):
        decode_from_holder(encode(Lost(reason="x")) + bytes(messages.MESSAGE_BYTES_MAX))
    with pytest.raises(PeerError, match="are allowed"):
        decode_from_leader(bytes(FRAME_BYTES_MAX + 1))


def test_the_largest_order_and_the_longest_reason_fit_where_they_must():
    part = Part(name="x" * 60, size=1 << 39, sha256="a" * 64, root=bytes(32), origin="https://" + "x" * 500)
    assert len(encode(an_order(parts=(part,) * messages.PARTS_MAX, holders=(NODE,) * 64))) < FRAME_BYTES_MAX
    reason = messages.shortened("\N{SNOWMAN}" * 5000)
    assert decode_from_holder(encode(Lost(reason=reason))) == Lost(reason=reason)
    largest = manifest_of(b"x" * 1)
    hashes = bytes(32 * 16_384)
    signed = sign_manifest(key(1), "m", 0, type(largest)(16_384 * 65_536, hashes))
    frame = byte_messages.encode(Held(manifest=signed))
    assert len(frame) < FRAME_BYTES_MAX and byte_messages.decode_answer(frame) == Held(manifest=signed)


def test_the_layers_of_an_order_are_a_range():
    assert an_order(first=0, end=7).layers == LayerRange(0, 7)


# -- hostile input -------------------------------------------------------------------------------------------


def check_any(data: bytes) -> None:
    """A body that anybody may have signed."""
    signature = key(1).sign(byte_messages.DOMAIN, data)
    byte_messages.check_manifest(
        SignedManifest(signer=NODE, body=data, signature=signature), "sha256:5df1", 0
    )


@dataclass(frozen=True)
class Decoder:
    decode: Callable[[bytes], object]
    corpus: Sequence[bytes]


DECODERS = {
    "leaders": Decoder(decode_from_leader, [encode(each) for each in FROM_LEADER]),
    "holders": Decoder(decode_from_holder, [encode(each) for each in FROM_HOLDER]),
    "rings": Decoder(messages.decode_ring_hello, [encode(RingHello(ring=ID, session=ID, stage=3))]),
    "wants": Decoder(
        byte_messages.decode_want,
        [
            byte_messages.encode(Want(model="sha256:5df1", part=n, root=root))
            for n, root in ((0, None), (9, bytes(32)))
        ],
    ),
    "ranges": Decoder(byte_messages.decode_range, [byte_messages.encode(Range(first=5, count=16_000))]),
    "answers": Decoder(
        byte_messages.decode_answer,
        [byte_messages.encode(each) for each in (Hashing(fraction=0.5), Held(), Held(manifest=SIGNED))],
    ),
    "manifests": Decoder(check_any, [SIGNED.body]),
}


@pytest.mark.parametrize("name", DECODERS)
def test_ten_thousand_hostile_inputs_raise_peer_errors_and_nothing_else(name: str):
    decoder = DECODERS[name]
    assert survives(partial(decoder.decode), decoder.corpus, PeerError) > 1000
