"""A relay in front of a TCP port that can stop: it refuses new connections and cuts those it carries."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress


class TcpRelay:
    def __init__(self, host: str, port: int) -> None:
        self._there = (host, port)
        self._writers: list[asyncio.StreamWriter] = []
        self._tasks: asyncio.TaskGroup | None = None
        self._server: asyncio.Server | None = None
        self.port = 0
        self.carried = 0

    @asynccontextmanager
    async def running(self) -> AsyncGenerator["TcpRelay"]:
        async with asyncio.TaskGroup() as self._tasks:
            await self.start()
            try:
                yield self
            finally:
                self.stop()

    async def start(self) -> None:
        self._server = await asyncio.start_server(self._carry, "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]

    def stop(self) -> None:
        if self._server is not None:
            self._server.close()
        for writer in self._writers:
            writer.transport.abort()
        self._writers.clear()

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.carried += 1
        there_reader, there_writer = await asyncio.open_connection(*self._there)
        self._writers += [writer, there_writer]
        assert self._tasks is not None
        self._tasks.create_task(self._copy(reader, there_writer))
        self._tasks.create_task(self._copy(there_reader, writer))

    async def _copy(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            while piece := await reader.read(65536):
                writer.write(piece)
                await writer.drain()
        writer.transport.abort()
