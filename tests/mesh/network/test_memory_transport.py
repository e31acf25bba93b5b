import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from random import Random

import pytest

from mesh_llm.core.ids import NodeId
from mesh_llm.mesh.network.memory_transport import MemoryNetwork, MemoryTransport
from mesh_llm.mesh.transport import Addresses, Connection
from tests.mesh.transport_contract import CONTRACT, Sentence, echo_everything, name_of
from tests.simulation.virtual_time import run_virtually


def an_id(chance: Random) -> NodeId:
    return NodeId(chance.randbytes(32).hex())


class MemoryFarNode:
    def __init__(self, network: MemoryNetwork, tasks: asyncio.TaskGroup) -> None:
        self.me = an_id(network.chance)
        self._network = network
        self._tasks = tasks
        self._running = asyncio.Event()
        self._life: asyncio.Task[None] | None = None

    @property
    def addresses(self) -> Addresses:
        assert self.transport is not None
        return self.transport.addresses

    async def fall_silent(self) -> None:
        self._network.kill(self.me)

    async def restart(self) -> None:
        self._network.kill(self.me)
        await self.stop()
        await self.start()

    async def start(self) -> None:
        self._running = asyncio.Event()
        self._life = self._tasks.create_task(self._live())
        await self._running.wait()

    async def stop(self) -> None:
        assert self._life is not None
        self._life.cancel()
        await asyncio.wait([self._life])

    async def _live(self) -> None:
        async with self._network.transport(self.me) as self.transport, asyncio.TaskGroup() as tasks:
            self._running.set()
            await echo_everything(self.transport, tasks)


class MemoryHarness:
    nobody = Addresses(direct=("memory:0",))
    notice_seconds_max = 5.0

    def __init__(self) -> None:
        self.network = MemoryNetwork(Random(7), datagram_loss=0.1)

    @asynccontextmanager
    async def transport(self) -> AsyncGenerator[MemoryTransport]:
        async with self.network.transport(an_id(self.network.chance)) as transport:
            yield transport

    @asynccontextmanager
    async def far_node(self) -> AsyncGenerator[MemoryFarNode]:
        async with asyncio.TaskGroup() as tasks:
            node = MemoryFarNode(self.network, tasks)
            await node.start()
            yield node
            await node.stop()

    def introduce(self, near: Connection, far: Connection) -> None:
        pass


@pytest.mark.parametrize("sentence", CONTRACT, ids=name_of)
def test_in_memory(sentence: Sentence):
    run_virtually(sentence(MemoryHarness()))


def test_packets_that_take_the_way_over_a_relay_are_known_to_both():
    async def sentence() -> None:
        network = MemoryNetwork(Random(7))
        one, other = an_id(network.chance), an_id(network.chance)
        async with network.transport(one) as here, network.transport(other) as there:
            near = await here.connect(there.me, there.addresses)
            far = await there.accept()
            assert not near.is_relayed
            network.relay(one, other)
            assert near.is_relayed and far.is_relayed

    run_virtually(sentence())
