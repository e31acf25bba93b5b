import itertools
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesh_llm.core.errors import EngineFailed
from mesh_llm.gateway.exchange import Exchange, Usage
from mesh_llm.gateway.openai.chat import mended
from mesh_llm.gateway.openai.chat_answer import ChatAnswer, ChatStream
from mesh_llm.gateway.sse import EventReader
from mesh_llm.gateway.translation import Mended, Untouched, read_counts

USAGE = {"prompt_tokens": 7, "completion_tokens": 2, "prompt_tokens_details": {"cached_tokens": 1}}
CHUNKS = [
    {
        "id": "c",
        "model": "engine's name",
        "choices": [{"index": 0, "delta": {"content": "Hé"}, "finish_reason": None}],
    },
    {
        "id": "c",
        "model": "engine's name",
        "choices": [{"index": 0, "delta": {"content": "llo"}, "finish_reason": None}],
    },
    {"id": "c", "model": "engine's name", "choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]},
    {"id": "c", "model": "engine's name", "choices": [], "usage": USAGE, "timings": {"prompt_n": 6}},
]
STREAM = b": ping\n\ndata: null\n\n" + b"".join(
    b"data: " + json.dumps(chunk, ensure_ascii=False).encode() + b"\n\n" for chunk in CHUNKS
)
DONE = b"data: [DONE]\n\n"


def an_exchange(writer):
    return mended({"n": 1}, [], writer, stream=True, tell_usage=True)


@given(st.lists(st.integers(0, len(STREAM)), max_size=6))
def test_a_stream_is_mended_however_it_is_cut(cuts):
    exchange = an_exchange(ChatStream("ours"))
    translation = Mended(exchange)
    edges = [0, *sorted(cuts), len(STREAM)]
    out = b"".join(
        translation.feed(STREAM[start:end]) for start, end in itertools.pairwise(edges)
    ) + translation.feed(DONE)
    assert translation.ended
    out += translation.finish()
    assert out.startswith(b":\n\n")  # a comment keeps a silent line open for the client too
    *chunks, done = [event.data for event in EventReader().feed(out) if event.data]
    assert done == b"[DONE]"
    chunks = [json.loads(chunk) for chunk in chunks]
    assert {chunk["model"] for chunk in chunks} == {"ours"}
    assert "".join(chunk["choices"][0]["delta"].get("content", "") for chunk in chunks[:-1]) == "Héllo"
    assert chunks[-1]["usage"]["total_tokens"] == 9
    assert exchange.usage == Usage(7, 2, 1)


def test_a_stream_without_its_end_has_not_ended():
    for translation in (Mended(an_exchange(ChatAnswer("m"))), Untouched(Usage())):
        translation.feed(STREAM)
        assert not translation.ended


def test_an_error_in_a_mended_stream_is_raised():
    with pytest.raises(EngineFailed, match="burnt"):
        Mended(an_exchange(ChatAnswer("m"))).feed(b'data: {"error":{"code":500,"message":"burnt"}}\n\n')


@given(st.lists(st.integers(0, len(STREAM + DONE)), max_size=6))
def test_untouched_bytes_stay_the_same_and_are_counted(cuts):
    exchange: Exchange = an_exchange(ChatStream("m"))
    translation, whole = Untouched(exchange.usage), STREAM + DONE
    edges = [0, *sorted(cuts), len(whole)]
    out = b"".join(translation.feed(whole[start:end]) for start, end in itertools.pairwise(edges))
    assert out + translation.finish() == whole
    assert translation.ended and translation.told is None
    assert exchange.usage == Usage(7, 2, 1)


def test_timings_serve_where_there_is_no_usage():
    usage = Usage()
    read_counts(b'..."timings":{"cache_n":30,"prompt_n":1,"predicted_n":4,"draft_n":9}}', usage)
    assert usage == Usage(31, 4, 30)
