import json
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesh_llm.core.errors import EngineFailed
from mesh_llm.gateway.sse import Event, EventReader, WholeEvents, encode

STREAM = (
    b': ping\n\nevent: x\r\ndata: {"a":1}\r\n\r\n'
    b"data: one\ndata: two\n\nid: 7\n\ndata:[DONE]\n\ndata: cut off"
)
EVENTS = [Event(b""), Event(b'{"a":1}'), Event(b"one\ntwo"), Event(b"[DONE]")]


@given(st.lists(st.integers(0, len(STREAM)), max_size=12))
def test_events_are_the_same_however_the_bytes_are_cut(cuts):
    reader, found = EventReader(), []
    edges = [0, *sorted(cuts), len(STREAM)]
    for start, end in pairwise(edges):
        found += reader.feed(STREAM[start:end])
    assert found == EVENTS


@given(st.binary())
def test_no_bytes_crash_the_reader(data):
    EventReader().feed(data)


@pytest.mark.parametrize("endless", [b"data: aaaaaaaaa\n", b"aaaaaaaaaaaaaaaa"])
def test_an_event_without_end_is_given_up(endless):
    reader = EventReader(event_bytes_max=100)

    def feed_for_ever():
        for _ in range(20):
            reader.feed(endless)

    with pytest.raises(EngineFailed, match="without end"):
        feed_for_ever()


def test_what_is_written_can_be_read():
    written = encode({"text": "a\nb"}, "delta")
    assert written.startswith(b"event: delta\n")
    (event,) = EventReader().feed(written)
    assert json.loads(event.data) == {"text": "a\nb"}


@given(st.lists(st.integers(0, len(STREAM)), max_size=8))
def test_whole_events_pass_however_they_are_cut_and_nothing_is_lost(cuts):
    passing, edges = WholeEvents(), [0, *sorted(cuts), len(STREAM)]
    out = [passing.feed(STREAM[start:end]) for start, end in pairwise(edges)]
    assert all(not part or part.endswith((b"\n\n", b"\r\n\r\n")) for part in out)
    assert b"".join(out) + passing.finish() == STREAM


def test_an_event_beyond_the_bound_goes_out_in_pieces():
    passing = WholeEvents(held_bytes_max=10)
    assert passing.feed(b"data: 123") == b""
    assert passing.feed(b"456") == b"data: 123456"
    assert passing.feed(b"7\n\n") == b"7\n\n"
    assert passing.feed(b"data: 1") + passing.finish() == b"data: 1"
