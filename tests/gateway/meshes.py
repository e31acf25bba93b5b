"""Gateways in one process, joined by streams in memory that break when a test says so."""

import asyncio
import random
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import aiohttp

from mesh_llm.core.ids import NodeId
from mesh_llm.core.offers import ModelOffer, ServedOffer
from mesh_llm.gateway.app import Gateway
from mesh_llm.gateway.backend import Backend
from mesh_llm.gateway.remote import RemoteServer
from mesh_llm.gateway.tunnel import AnswerHead, decode_question, encode
from mesh_llm.mesh.transport import PeerError, Unreachable
from tests.gateway.serving import Client, serving

ASKER = NodeId("a" * 64)
FIRST = NodeId("1" * 64)
SECOND = NodeId("2" * 64)
WINDOW_FRAMES = 16


class Direction:
    """Frames one way: ends in order, or breaks off at once."""

    def __init__(self) -> None:
        self._frames: asyncio.Queue[bytes | None] = asyncio.Queue(WINDOW_FRAMES)
        self._broken = asyncio.Event()
        self.ended = False

    async def put(self, frame: bytes | None) -> None:
        await self._unless_broken(self._frames.put(frame))

    async def get(self) -> bytes | None:
        return await self._unless_broken(self._frames.get())

    async def _unless_broken(self, work: Any) -> Any:
        async with asyncio.TaskGroup() as tasks:
            working = tasks.create_task(work)
            broken = tasks.create_task(self._broken.wait())
            await asyncio.wait((working, broken), return_when=asyncio.FIRST_COMPLETED)
            done = working.done() and not working.cancelled()
            working.cancel()
            broken.cancel()
        if not done:
            raise Unreachable("the stream was broken off")
        return working.result()

    def break_off(self) -> None:
        self._broken.set()


class PipeStream:
    """One end of a stream in memory."""

    def __init__(self, peer: NodeId, incoming: Direction, outgoing: Direction) -> None:
        self.peer = peer
        self.incoming = incoming
        self.outgoing = outgoing
        self.sent: list[bytes] = []
        self._is_over = False

    async def send(self, frame: bytes) -> None:
        assert 0 < len(frame) <= 1024 * 1024
        self.sent.append(frame)
        await self.outgoing.put(frame)

    async def receive(self) -> bytes | None:
        if self._is_over:
            return None
        frame = await self.incoming.get()
        self._is_over = frame is None
        return frame

    async def finish(self) -> None:
        if not self.outgoing.ended:
            self.outgoing.ended = True
            await self.outgoing.put(None)

    async def close(self) -> None:
        if not self.outgoing.ended:
            self.outgoing.break_off()
        if not self._is_over:
            self.incoming.break_off()


def pair(one: NodeId, other: NodeId) -> tuple[PipeStream, PipeStream]:
    """The ends of one stream, at `one` and at `other`."""
    there, back = Direction(), Direction()
    return PipeStream(other, back, there), PipeStream(one, there, back)


Answering = Callable[[PipeStream], Awaitable[None]]


@dataclass
class Node:
    """As another node sees it."""

    node: NodeId
    name: str
    answer: Answering
    offers: Callable[[], Sequence[ServedOffer]]
    busy: Callable[[], int] = lambda: 0


@dataclass
class JoinedMesh:
    """What one gateway knows of the others; `tasks` outlives every stream."""

    me: NodeId
    tasks: asyncio.TaskGroup
    nodes: dict[NodeId, Node] = field(default_factory=dict)
    doubted: list[NodeId] = field(default_factory=list)
    opened: list[NodeId] = field(default_factory=list)
    unreachable: set[NodeId] = field(default_factory=set)
    streams: list[tuple[NodeId, PipeStream, PipeStream]] = field(default_factory=list)
    protocol_errors: list[PeerError] = field(default_factory=list)

    def servers(self) -> Sequence[RemoteServer]:
        return [
            RemoteServer(node.node, node.name, served, node.busy())
            for node in self.nodes.values()
            for served in node.offers()
        ]

    @asynccontextmanager
    async def tunnel(self, node: NodeId) -> AsyncGenerator[PipeStream]:
        if node in self.unreachable:
            raise Unreachable("nobody answers there")
        self.opened.append(node)
        mine, theirs = pair(self.me, node)
        self.streams.append((node, mine, theirs))
        self.tasks.create_task(self._answer(self.nodes[node], theirs))
        try:
            yield mine
        finally:
            await mine.close()

    async def _answer(self, node: Node, stream: PipeStream) -> None:
        try:
            await node.answer(stream)
        except PeerError as error:
            self.protocol_errors.append(error)
        except Unreachable:
            pass
        finally:
            await stream.close()

    def traffic(self) -> Mapping[str, tuple[int, int]]:
        return {}

    def doubt(self, node: NodeId) -> None:
        self.doubted.append(node)

    def kill(self, node: NodeId) -> None:
        """Every stream to it breaks, and nobody can reach it any more."""
        self.unreachable.add(node)
        for other, mine, theirs in self.streams:
            if other == node:
                for direction in (mine.incoming, mine.outgoing, theirs.incoming, theirs.outgoing):
                    direction.break_off()


def an_offer(name: str, *, ready: bool = True, speed: float = 0.0, **changes: Any) -> ServedOffer:
    return ServedOffer(ModelOffer(name, **changes), ready, speed)


def a_node(node: NodeId, answer: Answering, *served: ServedOffer, name: str = "", busy: int = 0) -> Node:
    """One that a test answers for."""
    return Node(node, name or f"node {node[0]}", answer, lambda: served, lambda: busy)


async def read_question(stream: PipeStream) -> tuple[Any, bytes]:
    head = decode_question(await stream.receive())
    body = b""
    while len(body) < head.size:
        body += await stream.receive() or b""
    return head, body


async def begin_events(stream: PipeStream) -> None:
    await stream.send(encode(AnswerHead(status=200, content_type="text/event-stream", busy=1)))


@dataclass
class Asked:
    gateway: Gateway
    client: Client
    mesh: JoinedMesh


@asynccontextmanager
async def asker(*nodes: Node, backends: Sequence[Backend] = (), **settings: Any) -> AsyncGenerator[Asked]:
    """A gateway before these nodes, and a client of it."""
    async with asyncio.TaskGroup() as tasks:
        mesh = JoinedMesh(ASKER, tasks, {node.node: node for node in nodes})
        async with (
            serving(backends, mesh=mesh, **settings) as (gateway, url),
            aiohttp.ClientSession() as session,
        ):
            yield Asked(gateway, Client(url, session), mesh)


@asynccontextmanager
async def servers(**backends: Sequence[Backend]) -> AsyncGenerator[list[Node]]:
    """Nodes with gateways of their own, by their names."""
    async with AsyncExitStack() as stack:
        nodes: list[Node] = []
        for (name, served), identity in zip(backends.items(), (FIRST, SECOND), strict=False):
            gateway, _ = await stack.enter_async_context(serving(served, chance=random.Random(name)))
            nodes.append(Node(identity, name, gateway.answer, gateway.offers, gateway.busy))
        yield nodes
