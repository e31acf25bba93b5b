"""A network in memory, for tests and simulations: `iroh_transport.py`'s twin, no kinder than the real one.

Datagrams get lost, streams only wait; a window fills; a stream shows at its other end with its first byte;
a dead peer just falls silent. Works on any event loop, one with virtual time too: it uses timers alone.
"""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from functools import partial
from itertools import count
from random import Random

from mesh_llm.core.ids import NodeId, short
from mesh_llm.mesh.network.connection import CarriedConnection
from mesh_llm.mesh.network.connections import Connections
from mesh_llm.mesh.network.memory_carrier import MemoryCarrier
from mesh_llm.mesh.network.memory_wire import Wire
from mesh_llm.mesh.transport import CONNECT_SECONDS_MAX, Addresses, Connection, Unreachable
from mesh_llm.runtime.tasks import unwrapped


class MemoryNetwork:
    """Joins `MemoryTransport`s. Latency and loss may be changed at any time."""

    def __init__(
        self, chance: Random, latency_s: tuple[float, float] = (0.001, 0.003), datagram_loss: float = 0.0
    ) -> None:
        self.chance = chance
        self.latency_s = latency_s
        self.datagram_loss = datagram_loss
        self._cuts: set[frozenset[NodeId]] = set()
        self._relayed: set[frozenset[NodeId]] = set()
        self._alive: dict[str, MemoryTransport] = {}
        self._numbers = count(1)

    @asynccontextmanager
    async def transport(self, node: NodeId) -> AsyncGenerator["MemoryTransport"]:
        """A node's door to this network. A node that was killed may come again, at another address."""
        with unwrapped():
            async with asyncio.TaskGroup() as tasks:
                transport = MemoryTransport(self, node, f"memory:{next(self._numbers)}", tasks)
                self._alive[transport.address] = transport
                try:
                    yield transport
                finally:
                    await transport.close()

    def cut(self, one: NodeId, other: NodeId) -> None:
        """Nothing passes between them, and nobody is told."""
        self._cuts.add(frozenset((one, other)))

    def mend(self, one: NodeId, other: NodeId) -> None:
        self._cuts.discard(frozenset((one, other)))

    def relay(self, one: NodeId, other: NodeId) -> None:
        """Their packets reach each other over a third party only."""
        self._relayed.add(frozenset((one, other)))

    def is_relayed(self, one: NodeId, other: NodeId) -> bool:
        return frozenset((one, other)) in self._relayed

    def kill(self, node: NodeId) -> None:
        """As when a process is killed or a machine loses power: from now on it is silent."""
        for address, transport in tuple(self._alive.items()):
            if transport.me == node:
                del self._alive[address]

    def remove(self, transport: "MemoryTransport") -> None:
        self._alive.pop(transport.address, None)

    def passes(self, sender: "MemoryTransport", to: "MemoryTransport") -> bool:
        alive = sender.address in self._alive and to.address in self._alive
        return alive and frozenset((sender.me, to.me)) not in self._cuts

    def find(self, addresses: tuple[str, ...]) -> "MemoryTransport | None":
        return next((self._alive[address] for address in addresses if address in self._alive), None)


class MemoryTransport:
    """`mesh.transport.Transport`. Made by `MemoryNetwork.transport`."""

    def __init__(self, network: MemoryNetwork, me: NodeId, address: str, tasks: asyncio.TaskGroup) -> None:
        self.me = me
        self.address = address
        self._network = network
        self._known: dict[NodeId, tuple[str, ...]] = {}
        self._connections = Connections(tasks)
        self.traffic = self._connections.traffic

    @property
    def addresses(self) -> Addresses:
        return Addresses(direct=(self.address,))

    async def connect(self, peer: NodeId, addresses: Addresses) -> Connection:
        known = self._known[peer] = addresses.direct or self._known.get(peer, ())
        if not known:
            raise Unreachable(f"no address of {short(peer)} is known")
        if peer == self.me:
            raise Unreachable("a node does not connect to itself")
        await self._round_trip()
        there = self._network.find(known)
        if there is not None and there.me != peer:
            raise Unreachable(f"another node answers at the address of {short(peer)}")
        if there is None or not self._network.passes(self, there):
            await asyncio.sleep(CONNECT_SECONDS_MAX - self._network.latency_s[1] * 2)
            raise Unreachable(f"{short(peer)} does not answer")
        return self._join(there)

    async def accept(self) -> Connection:
        return await self._connections.accept()

    async def close(self) -> None:
        await self._connections.close("the node has left")
        self._network.remove(self)

    def _join(self, there: "MemoryTransport") -> CarriedConnection:
        here_to_there = Wire(self._network, lambda: self._network.passes(self, there))
        there_to_here = Wire(self._network, lambda: self._network.passes(there, self))
        is_relayed = partial(self._network.is_relayed, self.me, there.me)
        carrier = MemoryCarrier(there.me, dialled=True, wire=here_to_there, is_relayed=is_relayed)
        twin = MemoryCarrier(self.me, dialled=False, wire=there_to_here, is_relayed=is_relayed)
        carrier.join(twin)
        there._connections.arrived(twin)
        return self._connections.adopt(carrier)

    async def _round_trip(self) -> None:
        latencies = (self._network.chance.uniform(*self._network.latency_s) for _ in range(2))
        await asyncio.sleep(sum(latencies))
