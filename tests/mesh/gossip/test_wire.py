"""Datagrams and gossip frames: what goes out comes in, nothing is too long, nothing hostile gets through."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesh_llm.core.ids import NodeId
from mesh_llm.mesh.gossip import exchange, wire
from mesh_llm.mesh.gossip.advert import SignedAdvert
from mesh_llm.mesh.gossip.exchange import VIEW_MEMBERS_MAX, AdvertsWanted, View
from mesh_llm.mesh.gossip.messages import Ack, Gossip, Ping, PingReport, PingRequest
from mesh_llm.mesh.gossip.news import NUMBER_MAX, Health, News
from mesh_llm.mesh.gossip.rumours import Rumours
from mesh_llm.mesh.transport import DATAGRAM_BYTES_MAX, PeerError
from tests.mesh.mutations import survives

numbers = st.integers(0, NUMBER_MAX)
nodes = st.binary(min_size=32, max_size=32).map(lambda raw: NodeId(raw.hex()))
rumoured = st.builds(
    News, nodes, numbers, st.sampled_from([Health.ALIVE, Health.SUSPECT, Health.DEAD]), numbers
)
leaves = st.builds(News, nodes, numbers, st.just(Health.LEFT), numbers, st.binary(min_size=64, max_size=64))
news = st.lists(st.one_of(rumoured, leaves), max_size=8).map(tuple)
digests = st.binary(min_size=8, max_size=8)
messages = st.one_of(
    st.builds(Ping, numbers, numbers, numbers, digests, numbers, news),
    st.builds(Ack, numbers, numbers, numbers, digests, numbers, news),
    st.builds(PingRequest, numbers, nodes),
    st.builds(PingReport, numbers, nodes),
    st.builds(Gossip, news),
)

NODE = NodeId("ab" * 32)
PING = Ping(
    1, 2, 3, b"d" * 8, 4, (News(NODE, 1, Health.SUSPECT, 2), News(NODE, 1, Health.LEFT, 2, b"s" * 64))
)
DATAGRAMS = [
    wire.encode(message) for message in (PING, PingRequest(1, NODE), PingReport(2, NODE), Gossip(PING.news))
]
FRAMES = [
    exchange.encode(frame)
    for frame in (View(PING.news * 3), AdvertsWanted((NODE, NODE)), SignedAdvert(b"body" * 50, b"s" * 64))
]


@given(messages)
def test_what_is_encoded_is_decoded(message):
    data = wire.encode(message)
    assert wire.decode(data) == message
    assert len(data) <= DATAGRAM_BYTES_MAX


@given(st.lists(st.one_of(rumoured, leaves), max_size=60, unique_by=lambda item: item.node))
def test_as_much_news_as_a_message_takes_always_fits_a_datagram(waiting):
    rumours = Rumours()
    for item in waiting:
        rumours.add(item)
    told = rumours.take(1000)
    largest = Ping(NUMBER_MAX, NUMBER_MAX, NUMBER_MAX, b"d" * 8, NUMBER_MAX, told)
    assert len(wire.encode(largest)) <= DATAGRAM_BYTES_MAX
    assert len(told) >= min(len(waiting), 8)


@given(
    news,
    st.lists(nodes, max_size=64).map(tuple),
    st.binary(max_size=300),
    st.binary(min_size=64, max_size=64),
)
def test_frames_are_decoded_as_they_were_encoded(members, wanted, body, signature):
    for frame in (View(members), AdvertsWanted(wanted), SignedAdvert(body, signature)):
        assert exchange.decode(exchange.encode(frame)) == frame


def test_the_largest_view_fits_a_frame_and_a_larger_one_is_refused():
    leave = News(NODE, NUMBER_MAX, Health.LEFT, NUMBER_MAX, b"s" * 64)
    data = exchange.encode(View((leave,) * VIEW_MEMBERS_MAX))
    assert len(data) <= exchange.FRAME_BYTES_MAX
    assert len(exchange.decode(data).members) == VIEW_MEMBERS_MAX
    short = [NODE_BYTES, 0, 0, 0]
    with pytest.raises(PeerError, match="length"):
        exchange.decode(b"\x01" + msgspec.msgpack.encode([short] * (VIEW_MEMBERS_MAX + 1)))


NODE_BYTES = bytes.fromhex(NODE)


def test_a_newer_peers_fields_and_kinds_are_passed_over():
    more = bytes((wire.DatagramKind.PING_REQUEST,)) + msgspec.msgpack.encode(
        [7, NODE_BYTES, "new", {"and": 1}]
    )
    assert wire.decode(more) == PingRequest(7, NODE)
    assert wire.decode(b"\x63\xc0") == wire.Unknown(0x63)
    assert exchange.decode(b"\x63\xc0") == wire.Unknown(0x63)


@pytest.mark.parametrize(
    "news",
    [
        [NODE_BYTES[:31], 0, 0, 0],
        [NODE_BYTES, -1, 0, 0],
        [NODE_BYTES, 0, 4, 0],
        [NODE_BYTES, 0, 0, 2**63],
        [NODE_BYTES, 0, int(Health.LEFT), 0],
        [NODE_BYTES, 0, int(Health.DEAD), 0, b"s" * 64],
        [NODE_BYTES, 0, int(Health.LEFT), 0, b"s" * 63],
        ["name", 0, 0, 0],
        [NODE_BYTES, 0],
        None,
    ],
)
def test_news_that_no_version_may_send_is_refused(news):
    with pytest.raises(PeerError):
        wire.decode(bytes((wire.DatagramKind.GOSSIP,)) + msgspec.msgpack.encode([news]))


@pytest.mark.parametrize("data", [b"", b"\x01", b"\x05" + b"\xc0" * DATAGRAM_BYTES_MAX])
def test_a_datagram_of_no_possible_length_is_refused(data):
    with pytest.raises(PeerError, match="bytes"):
        wire.decode(data)


def test_ten_thousand_hostile_datagrams_raise_nothing_but_peer_errors():
    assert survives(wire.decode, DATAGRAMS, PeerError) > 1000


def test_ten_thousand_hostile_frames_raise_nothing_but_peer_errors():
    assert survives(exchange.decode, FRAMES, PeerError) > 1000


@given(st.binary(max_size=DATAGRAM_BYTES_MAX))
def test_noise_is_a_peer_error_or_an_honest_message(data):
    for decode in (wire.decode, exchange.decode):
        try:
            decode(data)
        except PeerError:
            continue
