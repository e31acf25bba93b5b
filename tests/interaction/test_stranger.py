"""A stranger that has a node's address and speaks raw iroh, but has no certificate: it gets nothing."""

import asyncio
import os
from collections.abc import AsyncGenerator, Generator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from random import Random

import iroh
import pytest
from iroh import iroh_ffi

from mesh_llm.mesh.admission import invites
from mesh_llm.mesh.admission.certificates import NONCE_BYTES
from mesh_llm.mesh.admission.hello import Hello, encode_hello
from mesh_llm.mesh.admission.joining import Declined, JoinRequest, decode_answer, encode_request
from mesh_llm.mesh.admission.ledger import founded
from mesh_llm.mesh.admission.signatures import NodeKey
from mesh_llm.mesh.gossip import wire
from mesh_llm.mesh.gossip.exchange import AdvertsWanted, View, encode
from mesh_llm.mesh.gossip.messages import DIGEST_BYTES, Gossip, Ping
from mesh_llm.mesh.gossip.news import Health, News
from mesh_llm.mesh.iroh_transport import ALPN, late_freeing
from mesh_llm.mesh.network.frames import END_FRAME, Data, Frame, FrameDecoder, Refusal, data_frame
from mesh_llm.mesh.transport import VERSIONS, Kind
from tests.interaction.background import BackgroundNode, in_background
from tests.interaction.nodes import MODEL, chat, get

pytestmark = pytest.mark.real

BOUND_S = 15.0
HOSTILE_STREAMS = 2000
STREAMS_OF_CONNECTION = 8
GROWTH_BYTES_MAX = 16 * 1024 * 1024
SETTLED_S = 20.0
"""Strangers have ten seconds; each stream of theirs that waits holds a buffer of 256 KiB."""
HTTP = b"GET /v1/models HTTP/1.1\r\nHost: localhost\r\n\r\n"
CHAT = b"POST /v1/chat/completions HTTP/1.1\r\nContent-Length: 2\r\n\r\n{}"
Failures = (iroh.IrohError, iroh_ffi.InternalError, TimeoutError)


@pytest.fixture(scope="module")
def node(store: Path, tmp_path_factory: pytest.TempPathFactory) -> Generator[BackgroundNode]:
    home = tmp_path_factory.mktemp("stranger") / "home"
    with in_background(store, home, "--model", MODEL, "--mesh-relay", "none") as node:
        node.wait_for_message("is ready")
        yield node


class Stranger:
    def __init__(self, endpoint: iroh.Endpoint, key: NodeKey, door: iroh.EndpointAddr) -> None:
        self.key = key
        self._endpoint = endpoint
        self._door = door

    async def connect(self) -> iroh.Connection:
        async with asyncio.timeout(BOUND_S):
            return await self._endpoint.connect(self._door, ALPN)

    async def says(self, connection: iroh.Connection, data: bytes) -> bytes:
        """On a stream of its own. All that comes back until the stream, or the connection, ends."""
        said = b""
        with suppress(*Failures):
            async with asyncio.timeout(BOUND_S):
                stream = await connection.open_bi()
                await stream.send().write_all(data)
                await stream.send().finish()
                while piece := await stream.recv().read(65536):
                    said += piece
        return said


@asynccontextmanager
async def a_stranger(node: BackgroundNode) -> AsyncGenerator[Stranger]:
    key = NodeKey(os.urandom(32))
    invite = invites.read(node.invite)  # for the address alone
    door = iroh.EndpointAddr(
        iroh.EndpointId.from_bytes(bytes.fromhex(invite.issuer)), None, list(invite.doors[0].addresses.direct)
    )
    options = iroh.EndpointOptions(relay_mode=iroh.RelayMode.disabled(), secret_key=key.seed, alpns=[ALPN])
    late_freeing().use_this_loop()  # it has the same library, and is to last longer than the node
    endpoint = await iroh.Endpoint.bind(options)
    try:
        yield Stranger(endpoint, key, door)
    finally:
        await endpoint.close()


def frames_in(data: bytes) -> list[Frame]:
    decoder = FrameDecoder()
    decoder.feed(data)
    frames: list[Frame] = []
    while (frame := decoder.next()) is not None:
        frames.append(frame)
    return frames


def preamble(kind: int, version: int = 1) -> bytes:
    return data_frame(bytes((kind, version)))


def payloads(data: bytes) -> list[bytes]:
    return [frame.payload for frame in frames_in(data) if isinstance(frame, Data)]


def refusals(data: bytes) -> list[str]:
    return [frame.reason for frame in frames_in(data) if isinstance(frame, Refusal)]


MEMBERS_STREAMS = {
    Kind.GOSSIP: (
        encode(View(())),
        encode(AdvertsWanted(())),
        encode(View((News(NodeKey(bytes(32)).node, 1, Health.DEAD, 1),))),
    ),
    Kind.NOTICE: (b"\x90",),
    Kind.RECORDS: (bytes(8),),
    Kind.STAGE: (b"\x80",),
    Kind.RING: (b"\x80",),
    Kind.BYTES: (b"\x80",),
    Kind.TUNNEL: (HTTP, CHAT, b"\x83\xa4path\xaa/v1/models\xa5model\xa0\xa4size\x00"),
}


async def test_a_stranger_gets_no_gossip_no_records_and_no_http(node: BackgroundNode):
    async with a_stranger(node) as stranger:
        for kind, questions in MEMBERS_STREAMS.items():
            connection = await stranger.connect()
            for question in questions:
                said = await stranger.says(connection, preamble(kind) + data_frame(question) + END_FRAME)
                assert payloads(said) == []
                assert refusals(said) == ["Show a certificate first (HELLO), or ask to join (JOIN)."]


async def test_a_certificate_of_the_strangers_own_making_is_no_key(node: BackgroundNode):
    async with a_stranger(node) as stranger:
        connection = await stranger.connect()
        own = founded(stranger.key.node, os.urandom(NONCE_BYTES)).certificate
        said = await stranger.says(
            connection, preamble(Kind.HELLO) + data_frame(encode_hello(Hello(own, "0.3.0"))) + END_FRAME
        )
        assert payloads(said) == [] and refusals(said) == ["foreign: the certificate is for another mesh"]
        connection = await stranger.connect()
        theirs = invites.read(node.invite).certificate  # everybody with a token has it
        said = await stranger.says(
            connection, preamble(Kind.HELLO) + data_frame(encode_hello(Hello(theirs, "0.3.0"))) + END_FRAME
        )
        assert payloads(said) == [] and refusals(said) == ["not-yours: the certificate is another node's"]


async def test_an_invented_token_lets_nobody_in(node: BackgroundNode):
    async with a_stranger(node) as stranger:
        connection = await stranger.connect()
        for token in ("", "mesh1AAAA", node.invite[:-4], node.invite.swapcase()):
            request = data_frame(encode_request(JoinRequest(token, "0.3.0")))
            (answer,) = payloads(await stranger.says(connection, preamble(Kind.JOIN) + request + END_FRAME))
            assert isinstance(decode_answer(answer), Declined)


@pytest.mark.parametrize(
    "data",
    [HTTP, CHAT, os.urandom(5000), b"\x01\xff\xff\xff\xff" + bytes(100), b"\x16\x03\x01" + bytes(300), b""],
    ids=["http", "post", "random", "a long frame", "tls", "nothing"],
)
async def test_what_is_no_stream_of_the_mesh_gets_no_answer(node: BackgroundNode, data: bytes):
    async with a_stranger(node) as stranger:
        assert payloads(await stranger.says(await stranger.connect(), data)) == []


async def test_kinds_and_versions_that_are_not_spoken_are_refused_by_name(node: BackgroundNode):
    async with a_stranger(node) as stranger:
        connection = await stranger.connect()
        (reason,) = refusals(await stranger.says(connection, preamble(99)))
        assert "kind 99" in reason and "gossip" in reason
        (reason,) = refusals(await stranger.says(connection, preamble(Kind.GOSSIP, 7)))
        assert f"in version {VERSIONS[Kind.GOSSIP]}, not 7" in reason


async def test_a_strangers_datagrams_are_not_answered(node: BackgroundNode):
    async with a_stranger(node) as stranger:
        connection = await stranger.connect()
        rumour = News(stranger.key.node, 1, Health.ALIVE, 1)
        for message in (Ping(1, 1, 1, bytes(DIGEST_BYTES), 0, (rumour,)), Gossip((rumour,))):
            for _ in range(50):
                connection.send_datagram(b"\0" + wire.encode(message))
        heard: set[bytes] = set()
        with suppress(*Failures):
            async with asyncio.timeout(2):
                while True:
                    heard.add((await connection.read_datagram())[:1])
        assert heard <= {b"\1", b"\2"}  # the transport's own, which look whether the line is alive


async def test_two_thousand_hostile_streams_leave_the_node_as_it_was(node: BackgroundNode):
    chance = Random(1)
    async with a_stranger(node) as stranger:
        await assail(stranger, HOSTILE_STREAMS, chance)  # what is allocated once is allocated by then
        before = node.memory_bytes
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(assail(stranger, HOSTILE_STREAMS, chance))
            for _ in range(5):
                assert [model["id"] for model in (await get(f"{node.url}/v1/models"))["data"]] == [MODEL]
                await asyncio.sleep(0.5)
        async with asyncio.timeout(SETTLED_S):  # those who were still inside are put out
            while node.memory_bytes - before >= GROWTH_BYTES_MAX:  # noqa: ASYNC110 - of another process
                await asyncio.sleep(0.2)
    status, body = await chat(node.url, model=MODEL)
    assert status == 200, body
    assert node.process.poll() is None


async def assail(stranger: Stranger, streams: int, chance: Random) -> None:
    """Over as many connections as it takes, a few at once."""
    left = streams

    async def keep_connecting() -> None:
        nonlocal left
        while left > 0:
            with suppress(*Failures):
                connection = await stranger.connect()
                connection.send_datagram(chance.randbytes(chance.randrange(1, 1000)))
                for _ in range(STREAMS_OF_CONNECTION):
                    await molest(connection, chance)
                    left -= 1
                connection.close(0, b"")

    async with asyncio.timeout(60), asyncio.TaskGroup() as tasks:
        for _ in range(8):
            tasks.create_task(keep_connecting())


async def molest(connection: iroh.Connection, chance: Random) -> None:
    """Opens a stream and sends something bad over it; waits for an answer now and then. Raises Failures where
    the node has had enough."""
    kind = chance.choice(list(Kind))
    data = chance.choice(
        [
            chance.randbytes(chance.randrange(1, 3000)),
            preamble(kind) + data_frame(chance.randbytes(chance.randrange(1, 3000))),
            preamble(kind) + b"\x01\x00\x10\x00\x00" + chance.randbytes(500),
            preamble(kind) + chance.choice(MEMBERS_STREAMS.get(kind, (b"?",))),
            preamble(kind)[: chance.randrange(1, 7)],
            HTTP,
        ]
    )
    async with asyncio.timeout(1):
        stream = await connection.open_bi()
        await stream.send().write_all(data)
        match chance.randrange(3):
            case 0:
                await stream.send().finish()
                await stream.recv().read(1000)
            case 1:
                await stream.send().reset(1)
            case _:
                pass  # left open
