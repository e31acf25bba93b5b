"""What other nodes send before an answer is decided: read, or refused as a broken protocol."""

import contextlib
import tracemalloc

import msgspec
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from mesh_llm.core.limits import REQUEST_BODY_BYTES_MAX
from mesh_llm.gateway.tunnel import (
    BODY_FRAME_BYTES,
    HEAD_BYTES_MAX,
    AnswerHead,
    BodyReader,
    QuestionHead,
    decode_answer,
    decode_question,
    encode,
    fits,
    frames_of,
)
from mesh_llm.mesh.transport import PeerError

QUESTION = QuestionHead(path="/v1/chat/completions", model="m", size=7)
ANSWER = AnswerHead(status=503, content_type="application/json", retry_after=5, busy=2)


def test_heads_come_through():
    assert decode_question(encode(QUESTION)) == QUESTION
    assert decode_answer(encode(ANSWER)) == ANSWER


def test_what_a_newer_version_adds_is_passed_over():
    newer = msgspec.msgpack.decode(encode(QUESTION)) | {"priority": 3, "deep": [{}] * 9}
    assert decode_question(msgspec.msgpack.encode(newer)) == QUESTION


def test_what_an_older_version_leaves_out_has_a_meaning():
    older = msgspec.msgpack.encode({"status": 200, "content_type": "text/event-stream"})
    assert decode_answer(older) == AnswerHead(status=200, content_type="text/event-stream")


@pytest.mark.parametrize(
    "wrong",
    [
        {"path": "/x\r\nEvil: 1"},
        {"path": "/" + "x" * 600},
        {"path": 7},
        {"model": "a\x00"},
        {"model": None},
        {"size": -1},
        {"size": 1.5},
        {"size": "7"},
    ],
)
def test_a_question_that_no_version_may_ask_is_refused(wrong):
    head = msgspec.msgpack.decode(encode(QUESTION)) | wrong
    with pytest.raises(PeerError):
        decode_question(msgspec.msgpack.encode(head))


@pytest.mark.parametrize(
    "wrong",
    [
        {"status": 100},
        {"status": 0},
        {"status": 1000},
        {"status": True},
        {"content_type": "text/html\r\nSet-Cookie: a=b"},
        {"content_type": "té"},
        {"content_type": None},
        {"retry_after": -1},
        {"retry_after": 10**9},
        {"busy": -1},
    ],
)
def test_an_answer_that_no_version_may_give_is_refused(wrong):
    head = msgspec.msgpack.decode(encode(ANSWER)) | wrong
    with pytest.raises(PeerError):
        decode_answer(msgspec.msgpack.encode(head))


@pytest.mark.parametrize("frame", [None, b"", b"\xc1", b"\x91" * 4000, b"\xdf\xff\xff\xff\xff", b"x" * 5000])
def test_a_frame_that_is_no_head_is_refused(frame):
    for decode in (decode_question, decode_answer):
        with pytest.raises(PeerError):
            decode(frame)


mutations = st.builds(
    lambda head, at, new, cut: (head[: at % len(head)] + new + head[at % len(head) + len(new) :])[:cut],
    st.sampled_from([encode(QUESTION), encode(ANSWER)]),
    st.integers(0, 500),
    st.binary(max_size=4),
    st.integers(0, 500),
)


@settings(max_examples=10_000, deadline=None)
@given(st.binary(max_size=200) | mutations)
@example(b"\xdd\xff\xff\xff\xff" + b"\x00" * 100)
@example(b"\x81\xa7headers\xdf\x7f\xff\xff\xff")
def test_hostile_heads_are_refused_or_read_and_nothing_else(frame):
    for decode in (decode_question, decode_answer):
        with contextlib.suppress(PeerError):
            decode(frame)


def test_hostile_heads_take_no_memory():
    claims = [bytes([kind]) + b"\xff\xff\xff\xff" + b"\x00" * 50 for kind in (0xC6, 0xDB, 0xDD, 0xDF, 0xC9)]
    named = [
        b"\x81" + bytes([0xA0 + len(key)]) + key + claim for key in (b"path", b"new") for claim in claims
    ]
    deep = [b"\x81\xa3new" + b"\x91" * (HEAD_BYTES_MAX - 5), b"\x81\xa3new" + b"\x81\xa1a" * 1300]
    tracemalloc.start()
    for _ in range(1000):
        for frame in claims + named + deep:
            for decode in (decode_question, decode_answer):
                with contextlib.suppress(PeerError):
                    decode(frame)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 4_000_000


def test_a_body_is_cut_into_frames_and_joined():
    body = bytes(range(256)) * 3000
    frames = list(frames_of(body))
    assert [len(frame) for frame in frames] == [BODY_FRAME_BYTES] * 2 + [len(body) - 2 * BODY_FRAME_BYTES]
    reader = BodyReader(len(body))
    for frame in frames:
        assert not reader.complete
        reader.take(frame)
    assert reader.complete and reader.body() == body
    assert BodyReader(0).complete and not list(frames_of(b""))


@pytest.mark.parametrize("frame", [b"12345678", b"", None])
def test_a_body_of_another_length_than_announced_is_refused(frame):
    with pytest.raises(PeerError):
        BodyReader(7).take(frame)


def test_a_body_beyond_the_bound_does_not_fit():
    assert fits(REQUEST_BODY_BYTES_MAX) and not fits(REQUEST_BODY_BYTES_MAX + 1)
