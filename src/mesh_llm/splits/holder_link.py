"""One stream to one holder of one file: ranges asked for ahead of what comes, each checked before it counts.

Takes its work from whoever owns the file's ranges (`part_ranges.py`) and gives back what it could not
bring.
"""

import asyncio
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from typing import Protocol

from mesh_llm.core.ids import NodeId
from mesh_llm.core.quantities import MIB
from mesh_llm.mesh.transport import Kind, PeerError, Stream, Unreachable
from mesh_llm.models.stages.chunks import Manifest
from mesh_llm.models.threads import run_to_end
from mesh_llm.runtime.tasks import beside
from mesh_llm.splits import byte_messages
from mesh_llm.splits.byte_messages import Hashing, Range, SignedManifest, Want
from mesh_llm.splits.faults import one_fault

WINDOW_BYTES = 16 * MIB
"""Asked for and not here yet: what a gigabit link holds at 128 ms, ten gigabits at 13 ms."""

SILENCE_SECONDS_MAX = 20.0
"""Of a holder that owes bytes. It says so itself each second while it makes a manifest."""

Open = Callable[[NodeId, Kind], AbstractAsyncContextManager[Stream]]
"""`Mesh.stream`."""


@dataclass(eq=False, slots=True)
class Run:
    """Neighbouring chunks, fetched as one."""

    chunks: range
    size: int
    """Bytes."""
    readers: int = 0
    """Who wait for it; a run without any is not fetched."""
    over: asyncio.Event = field(default_factory=asyncio.Event)
    pieces: tuple[bytes, ...] | None = None
    """Once it is over: the bytes, checked, or None where no holder could bring them."""


class Errands(Protocol):
    """What a link fetches, for one file."""

    @property
    def want(self) -> Want: ...

    def believe(self, signed: SignedManifest | None) -> Manifest:
        """Raises PeerError where it is not to be believed, or of another file."""
        ...

    async def take(self) -> Run | None:
        """The next run; None when there has been nothing to fetch for a while."""
        ...

    def bring(self, run: Run, pieces: tuple[bytes, ...]) -> None:
        """Checked."""
        ...

    def give_back(self, runs: list[Run]) -> None:
        """Somebody else may fetch them."""
        ...


class HolderLink:
    def __init__(self, stream: Stream, errands: Errands) -> None:
        self._stream = stream
        self._errands = errands
        self._manifest: Manifest
        self._taken: dict[Run, None] = {}
        """Asked for and not brought, in the order of asking."""
        self._asked: asyncio.Queue[Run | None] = asyncio.Queue()
        self._arrived: asyncio.Queue[tuple[Run, tuple[bytes, ...]] | None] = asyncio.Queue(1)
        self._room = asyncio.Event()
        self.has_brought = False
        """Anything at all."""

    async def run(self) -> None:
        """Until there is nothing more to fetch. Raises Unreachable, Refused, PeerError."""
        try:
            self._manifest = await self._agree()
            with one_fault():
                async with beside(asking=self._ask(), receiving=self._receive()):
                    await self._check()
        finally:
            self._errands.give_back(list(self._taken))

    async def _agree(self) -> Manifest:
        await self._stream.send(byte_messages.encode(self._errands.want))
        fraction = -1.0
        while True:
            answer = byte_messages.decode_answer(await self._hear())
            if not isinstance(answer, Hashing):
                return self._errands.believe(answer.manifest)
            if answer.fraction < fraction:
                raise PeerError("a manifest whose making goes back")
            fraction = answer.fraction

    async def _hear(self) -> bytes:
        try:
            async with asyncio.timeout(SILENCE_SECONDS_MAX):
                frame = await self._stream.receive()
        except TimeoutError:
            raise Unreachable(f"it sent nothing for {SILENCE_SECONDS_MAX:.0f} s") from None
        if frame is None:
            raise PeerError("a holder that ends before it has sent what was asked for")
        return frame

    async def _ask(self) -> None:
        while (run := await self._errands.take()) is not None:
            self._taken[run] = None
            chunks = run.chunks
            await self._stream.send(byte_messages.encode(Range(first=chunks.start, count=len(chunks))))
            self._asked.put_nowait(run)
            await self._wait_for_room()
        self._asked.put_nowait(None)
        await self._stream.finish()

    async def _wait_for_room(self) -> None:
        """Two runs at least, however large: one on its way while the next is asked for."""
        while len(self._taken) > 1 and sum(run.size for run in self._taken) >= WINDOW_BYTES:
            self._room.clear()
            await self._room.wait()

    async def _receive(self) -> None:
        while (run := await self._asked.get()) is not None:
            pieces: list[bytes] = []
            missing = run.size
            while missing:
                pieces.append(await self._hear())
                missing -= len(pieces[-1])
                if missing < 0:
                    raise PeerError("more bytes than were asked for")
            await self._arrived.put((run, tuple(pieces)))
        await self._arrived.put(None)

    async def _check(self) -> None:
        while (arrived := await self._arrived.get()) is not None:
            run, pieces = arrived
            wrong = await run_to_end(self._manifest.first_wrong, run.chunks, pieces)
            if wrong is not None:
                raise PeerError(f"chunk {wrong} is not what the manifest says: the bytes were changed")
            del self._taken[run]
            self._errands.bring(run, pieces)
            self.has_brought = True
            self._room.set()
