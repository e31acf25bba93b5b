"""The connections of one node: taken in, kept running, told goodbye. Transports build on it."""

import asyncio

from mesh_llm.mesh.network.carrier import Carrier
from mesh_llm.mesh.network.connection import CarriedConnection
from mesh_llm.mesh.network.mailbox import Mailbox
from mesh_llm.mesh.network.tls_path import TlsPath
from mesh_llm.mesh.transport import Connection, Traffic

CONNECTIONS_WAITING_MAX = 64
"""For somebody to accept them. More arrive only in a flood."""


class Connections:
    def __init__(self, tasks: asyncio.TaskGroup, fast: TlsPath | None = None) -> None:
        self._tasks = tasks
        self._fast = fast
        self.traffic = Traffic()
        self._running: dict[CarriedConnection, asyncio.Task[None]] = {}
        self._arrived: Mailbox[CarriedConnection] = Mailbox(CONNECTIONS_WAITING_MAX)

    def adopt(self, carrier: Carrier) -> CarriedConnection:
        connection = CarriedConnection(carrier, self._fast, self.traffic)
        task = self._tasks.create_task(connection.run(), name="connection")
        self._running[connection] = task
        task.add_done_callback(lambda _: self._running.pop(connection))
        return connection

    def arrived(self, carrier: Carrier) -> None:
        surplus = self._arrived.put(self.adopt(carrier))
        if surplus is not None:
            surplus.close("this node is too busy for new connections")

    async def accept(self) -> Connection:
        return await self._arrived.take()

    async def close(self, reason: str) -> None:
        """Returns when every peer may have heard it."""
        self._arrived.close(reason)
        for connection in self._running:
            connection.close(reason)
        if self._running:
            await asyncio.wait(tuple(self._running.values()))
