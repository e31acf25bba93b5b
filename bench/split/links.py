"""Links whose delay can be changed while they carry: TCP for llama.cpp's RPC, the ring for stages.

What is sent arrives one delay later, in order; how much is on its way is not limited.
"""

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager


class Delay:
    """One way, in seconds; shared by all links of a candidate."""

    def __init__(self) -> None:
        self.seconds = 0.0


class Pump(asyncio.Protocol):
    """What arrives here is written to `to`, later."""

    def __init__(self, delay: Delay) -> None:
        self._delay = delay
        self._own: asyncio.Transport | None = None
        self.to: Pump | None = None
        self._early: list[bytes] = []

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._own = transport

    def data_received(self, data: bytes) -> None:
        if self.to is None:
            self._early.append(data)
        elif self._delay.seconds:
            asyncio.get_running_loop().call_later(self._delay.seconds, self.to.write, data)
        else:
            self.to.write(data)

    def connect(self, to: "Pump") -> None:
        self.to = to
        for data in self._early:
            self.data_received(data)

    def connection_lost(self, exc: Exception | None) -> None:
        if self.to is not None:
            self.to.close()

    def write(self, data: bytes) -> None:
        if self._own is not None:
            self._own.write(data)

    def close(self) -> None:
        if self._own is not None:
            self._own.close()


@asynccontextmanager
async def relayed(port: int, delay: Delay) -> AsyncGenerator[int]:
    """A port of this machine behind which `port` lies, both ways delayed."""
    loop = asyncio.get_running_loop()
    dials: set[asyncio.Task[None]] = set()

    def accept() -> Pump:
        near = Pump(delay)
        dial = loop.create_task(reach(near))
        dials.add(dial)
        dial.add_done_callback(dials.discard)
        return near

    async def reach(near: Pump) -> None:
        _, far = await loop.create_connection(lambda: Pump(delay), "127.0.0.1", port)
        far.connect(near)
        near.connect(far)

    server = await loop.create_server(accept, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()


@asynccontextmanager
async def ring(sockets: Sequence[str], delay: Delay) -> AsyncGenerator[None]:
    """Children that listen on these unix sockets, each linked to the next and the last to the first."""
    loop = asyncio.get_running_loop()
    pumps = [(await loop.create_unix_connection(lambda: Pump(delay), path))[1] for path in sockets]
    for place, pump in enumerate(pumps):
        pump.connect(pumps[(place + 1) % len(pumps)])
    try:
        yield
    finally:
        for pump in pumps:
            pump.close()
