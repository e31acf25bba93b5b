import tracemalloc
from contextlib import suppress
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mesh_llm.mesh.network.frames import (
    BYTES_MAX,
    DATA,
    END,
    END_FRAME,
    HEAD,
    REASON_CHARACTERS_MAX,
    REFUSED,
    Data,
    End,
    Frame,
    FrameDecoder,
    Refusal,
    data_frame,
    refusal_frame,
)
from mesh_llm.mesh.transport import FRAME_BYTES_MAX, PeerError


def decoded(pieces: list[bytes]) -> list[Frame]:
    decoder, frames = FrameDecoder(), []
    for piece in pieces:
        decoder.feed(piece)
        while (frame := decoder.next()) is not None:
            frames.append(frame)
    return frames


def cut(data: bytes, chance: Random) -> list[bytes]:
    pieces = []
    while data:
        size = chance.choice((1, 2, 3, 7, 64, 1000))
        pieces.append(data[:size])
        data = data[size:]
    return pieces


@given(st.lists(st.binary(min_size=1, max_size=300)), st.randoms(use_true_random=False))
def test_frames_come_out_as_they_went_in_however_the_bytes_are_cut(payloads: list[bytes], chance: Random):
    sent = b"".join(data_frame(payload) for payload in payloads) + END_FRAME
    assert decoded(cut(sent, chance)) == [*(Data(payload) for payload in payloads), End()]


def test_the_longest_frame_passes():
    payload = b"x" * FRAME_BYTES_MAX
    assert decoded([data_frame(payload)]) == [Data(payload)]


@pytest.mark.parametrize("size", [0, FRAME_BYTES_MAX + 1])
def test_a_payload_outside_the_limits_is_not_encoded(size: int):
    with pytest.raises(ValueError, match="a frame holds"):
        data_frame(b"x" * size)


@pytest.mark.parametrize("kind", [DATA, END, REFUSED])
def test_a_length_over_the_limit_is_refused_before_a_byte_of_it_has_come(kind: int):
    decoder = FrameDecoder()
    decoder.feed(HEAD.pack(kind, BYTES_MAX[kind] + 1))
    with pytest.raises(PeerError, match="at most"):
        decoder.next()


def test_a_frame_without_data_is_refused():
    with pytest.raises(PeerError):
        decoded([HEAD.pack(DATA, 0)])


def test_an_unknown_type_is_refused():
    with pytest.raises(PeerError, match="unknown type 9"):
        decoded([HEAD.pack(9, 1)])


def test_a_refusal_carries_its_reason_and_no_novel():
    assert decoded([refusal_frame("nicht für Sie")]) == [Refusal("nicht für Sie")]
    assert decoded([refusal_frame("é" * 5000)]) == [Refusal("é" * REASON_CHARACTERS_MAX)]


def test_a_reason_that_is_no_text_is_refused():
    with pytest.raises(PeerError, match="UTF-8"):
        decoded([HEAD.pack(REFUSED, 2) + b"\xff\xff"])


def test_what_follows_the_last_frame_is_kept():
    decoder = FrameDecoder()
    decoder.feed(END_FRAME + b"next")
    assert decoder.next() == End()
    assert decoder.rest() == b"next"


def swallowed(pieces: list[bytes]) -> None:
    with suppress(PeerError):
        decoded(pieces)


@settings(max_examples=2000, deadline=None)
@given(st.binary(max_size=4000), st.randoms(use_true_random=False))
def test_random_bytes_raise_nothing_but_peer_error(data: bytes, chance: Random):
    swallowed(cut(data, chance))


def corpus() -> bytes:
    return data_frame(b"\x01\x01") + data_frame(b"hello" * 50) + refusal_frame("no") + END_FRAME


def test_ten_thousand_mutated_conversations_raise_nothing_but_peer_error_and_leave_memory_flat():
    chance = Random(3)

    def storm(rounds: int) -> None:
        for _ in range(rounds):
            data = bytearray(corpus())
            for _ in range(chance.randint(1, 5)):
                data[chance.randrange(len(data))] = chance.randrange(256)
            swallowed(cut(bytes(data), chance))

    storm(100)
    tracemalloc.start()
    try:
        storm(5_000)
        before = tracemalloc.get_traced_memory()[0]
        storm(5_000)
        held, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert held - before < 10_000
    assert peak - before < 100_000


def test_a_frame_that_trickles_in_byte_by_byte_takes_no_more_memory_than_it_holds():
    decoder = FrameDecoder()
    decoder.feed(HEAD.pack(DATA, FRAME_BYTES_MAX))
    tracemalloc.start()
    try:
        for _ in range(FRAME_BYTES_MAX - 1):
            decoder.feed(b"x")
        assert decoder.next() is None
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 4 * FRAME_BYTES_MAX
