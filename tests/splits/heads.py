"""A head that computes nothing: it sends a word into its ring, and is up when all stages have had it."""

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

from mesh_llm.core.serving import Endpoint
from mesh_llm.planner.split_plan import Stages

WORD = b"abc"


class AHead:
    def __init__(self, socket_path: str, remote: int, on_ring: Callable[[bool], None]) -> None:
        self.socket_path = socket_path
        self._awaited = bytes(byte + remote for byte in WORD)
        self._on_ring = on_ring
        self._ended: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self._connections: set[asyncio.StreamWriter] = set()

    async def wait_until_loaded(self) -> Endpoint:
        return Endpoint("http://127.0.0.1:1", "key")

    async def wait_for_end(self) -> str:
        return await asyncio.shield(self._ended)

    def end(self, reason: str) -> None:
        self._ended.set_result(reason)

    def break_ring(self) -> None:
        for connection in self._connections:
            connection.close()

    async def take(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._connections.add(writer)
        try:
            writer.write(WORD)
            if await reader.readexactly(len(WORD)) == self._awaited:
                self._on_ring(True)
            await reader.read()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            self._connections.discard(writer)
            writer.close()
            self._on_ring(False)


class Heads:
    """Launches them, for `SplitModel`."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.running: list[AHead] = []
        self.started = 0

    @asynccontextmanager
    async def launch(
        self, plan: Stages, on_progress: Callable[[float], None], on_ring: Callable[[bool], None]
    ) -> AsyncGenerator[AHead]:
        self.started += 1
        head = AHead(str(self._folder / f"head{self.started}"), len(plan.stages) - 1, on_ring)
        server = await asyncio.start_unix_server(head.take, head.socket_path)
        self.running.append(head)
        on_progress(1.0)
        try:
            yield head
        finally:
            self.running.remove(head)
            server.close()
            head.break_ring()
