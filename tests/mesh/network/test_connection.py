import asyncio
from random import Random
from typing import Any, cast

from mesh_llm.core.ids import NodeId
from mesh_llm.mesh.network.connection import CarriedConnection
from mesh_llm.mesh.network.memory_carrier import MemoryCarrier
from mesh_llm.mesh.network.memory_transport import MemoryNetwork
from mesh_llm.mesh.network.memory_wire import Wire
from tests.simulation.virtual_time import run_virtually


class LatePipe:
    """Of a stream that the peer has just opened over the fast path."""

    def __init__(self) -> None:
        self.aborted = False

    async def read(self, size: int) -> bytes:
        raise AssertionError("nobody is there to hear it")

    async def write(self, data: bytes) -> None:
        raise AssertionError("nobody is there to answer it")

    async def finish(self) -> None: ...

    async def abort(self) -> None:
        self.aborted = True

    async def done(self, rest: bytes) -> None: ...


def test_a_stream_that_comes_while_its_connection_ends_is_let_go_of():
    async def story() -> None:
        network = MemoryNetwork(Random(1))
        wire = Wire(network, lambda: True)
        carrier = MemoryCarrier(NodeId("a" * 64), dialled=True, wire=wire, is_relayed=lambda: False)
        connection = CarriedConnection(carrier)
        async with asyncio.TaskGroup() as tasks:
            running = tasks.create_task(connection.run())
            await asyncio.sleep(0.1)
            connection.close("enough")
            await running
        late = LatePipe()
        await cast("Any", connection)._take_in(late)  # as `TlsLinks` does
        assert late.aborted

    run_virtually(story())
