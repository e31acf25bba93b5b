"""A few members over real streams, each answering the kinds that a test gives it.

What `mesh.service.Mesh` is to the parts of `splits`, without gossip: `stream(node, kind)` to any member. Over
memory, or over iroh with the fast path where that is what matters.
"""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from random import Random

from mesh_llm.core.ids import NodeId
from mesh_llm.mesh.iroh_transport import IrohTransport
from mesh_llm.mesh.neighbour import Reach
from mesh_llm.mesh.network.memory_transport import MemoryNetwork
from mesh_llm.mesh.transport import (
    Connection,
    Kind,
    NoRelays,
    PeerError,
    Refused,
    Stream,
    Transport,
    Unreachable,
)
from mesh_llm.runtime.clock import Clock
from mesh_llm.runtime.tasks import unwrapped
from tests.mesh.members import key

Answer = Callable[[Stream], Awaitable[None]]


class Villager:
    def __init__(self, village: "Village", number: int, transport: Transport) -> None:
        self.key = key(number)
        self.transport = transport
        self.answers: dict[Kind, Answer] = {}
        self.errors: list[PeerError] = []
        """What peers did wrong here."""
        self.open = 0
        """Streams that are being answered now."""
        self._village = village
        self._known: dict[NodeId, Connection] = {}
        self._connections: list[Connection] = []

    @property
    def id(self) -> NodeId:
        return self.key.node

    @asynccontextmanager
    async def stream(self, node: NodeId, kind: Kind) -> AsyncGenerator[Stream]:
        """As `Mesh.stream`."""
        async with self._village.dialling:
            if node not in self._known:
                there = self._village.villagers[node]
                connection = await self.transport.connect(node, there.transport.addresses)
                self._known[node] = connection
                await there.met(self.id, connection)
                self._village.tasks.create_task(self.serve(connection))
        try:
            async with self._known[node].stream(kind) as stream:
                yield stream
        except PeerError as error:
            self.errors.append(error)
            raise

    def reach_of(self, node: NodeId) -> Reach | None:
        """As `Mesh.reach_of`."""
        known = self._known.get(node)
        return Reach(known.round_trip_s, known.is_relayed) if known else None

    async def met(self, node: NodeId, theirs: Connection) -> None:
        """Both sides know each other from here on, as after their hellos."""
        mine = await self.transport.accept()
        for one, other in ((mine, theirs), (theirs, mine)):
            one.trust()
            if other.fast_path is not None:
                one.use_fast_path(other.fast_path)
        self._known[node] = mine
        self._village.tasks.create_task(self.serve(mine))

    async def serve(self, connection: Connection) -> None:
        self._connections.append(connection)
        with suppress(Unreachable):
            while True:
                self._village.tasks.create_task(self._answer(await connection.accept()))

    async def _answer(self, stream: Stream) -> None:
        self.open += 1
        try:
            await self.answers[stream.kind](stream)
        except PeerError as error:
            self.errors.append(error)
        except (Unreachable, Refused):
            pass
        finally:
            self.open -= 1
            await stream.close()

    async def leave(self) -> None:
        """Every connection breaks at once."""
        for connection in self._connections:
            connection.close("gone")
        await self.transport.close()


class Village:
    def __init__(self, tasks: asyncio.TaskGroup) -> None:
        self.tasks = tasks
        self.dialling = asyncio.Lock()
        self.villagers: dict[NodeId, Villager] = {}

    def __getitem__(self, number: int) -> Villager:
        return self.villagers[key(number).node]

    def is_member(self, node: NodeId) -> bool:
        return node in self.villagers


@asynccontextmanager
async def village(count: int, *, iroh: bool = False, seconds: float = 60.0) -> AsyncGenerator[Village]:
    """Numbered from 1. Nothing may wait longer than `seconds` in all."""
    network = MemoryNetwork(Random(1), latency_s=(0.0, 0.0005))
    with unwrapped():
        async with asyncio.timeout(seconds), AsyncExitStack() as transports, asyncio.TaskGroup() as tasks:
            place = Village(tasks)
            for number in range(1, count + 1):
                door = (
                    IrohTransport.open(key(number).seed, bind_port=0, relays=NoRelays(), clock=Clock())
                    if iroh
                    else network.transport(key(number).node)
                )
                transport = await transports.enter_async_context(door)
                place.villagers[key(number).node] = Villager(place, number, transport)
            yield place
            for villager in place.villagers.values():
                await villager.leave()


async def until(is_it: Callable[[], bool]) -> None:
    """Bounded by the village's own time."""
    while not is_it():  # noqa: ASYNC110 - a test's eyes
        await asyncio.sleep(0.005)
