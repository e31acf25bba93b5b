"""One stage on this node, from the leader's order to its end: fetched, loaded, linked as often as it takes.

Three tasks share the leader's stream: one hears, one speaks, one runs the stage. Whatever ends, ends all,
and the stage's process with them.
"""

import asyncio
import logging
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, Protocol

from mesh_llm.core.errors import MeshError
from mesh_llm.core.ids import NodeId, short
from mesh_llm.core.stages import LayerRange
from mesh_llm.mesh.admission.signatures import node_id
from mesh_llm.mesh.transport import PeerError, Refused, Stream, Unreachable
from mesh_llm.runtime.tasks import beside
from mesh_llm.splits import messages
from mesh_llm.splits.bridging import bridge, child_socket
from mesh_llm.splits.faults import first_of, one_fault
from mesh_llm.splits.holder_link import Open
from mesh_llm.splits.messages import (
    Assign,
    Fetching,
    FromHolder,
    Link,
    Linked,
    Loading,
    Lost,
    Ready,
    Release,
    RingHello,
    Unlinked,
    shortened,
)
from mesh_llm.splits.ring_door import RingDoor, ring_to

logger = logging.getLogger(__name__)

LINK_SECONDS_MAX = 20.0
"""For both neighbours to be connected: a dial takes 10 s at most, a leader's word to the other as long."""

LAST_WORD_SECONDS_MAX = 5.0
"""For the leader to take `Lost`: the lease ends with or without it."""

WORDS_MAX = 1000
"""That the leader has not taken yet."""

STEP = 0.01
"""Of progress that is told: a hundred messages a phase at most."""

Phase = Literal["fetching", "loading", "ready", "linked"]


@dataclass(frozen=True, slots=True)
class HeldStage:
    """A stage that lies here for another node, as people see it."""

    leader: NodeId
    model: str
    """Its name."""
    layers: LayerRange
    phase: Phase = "fetching"
    fraction: float = 0.0
    """Of fetching or loading."""
    memory_bytes: int = 0
    """Once it is loaded."""


class StageReady(Protocol):
    """What a stage's process says once it listens (`engine/stage/stage_worker.py`)."""

    @property
    def socket_path(self) -> str: ...

    @property
    def resident_bytes(self) -> int: ...


class Worker(Protocol):
    """A stage's process; `StageWorker` is one."""

    async def wait_until_ready(self) -> StageReady:
        """Raises EngineFailed."""
        ...

    async def wait_for_end(self) -> str: ...


class Supplies(Protocol):
    """What a stage is given once it is in."""

    def obtain(
        self, assign: Assign, on_fetched: Callable[[float], None]
    ) -> AbstractAsyncContextManager[Path]:
        """The stage's file, kept as long as it is entered; `on_fetched` hears how much of it is there, to 1.

        Entering raises MeshError, and is cancelled where the leader goes.
        """
        ...

    def launch(
        self, assign: Assign, file: Path, on_loaded: Callable[[float], None]
    ) -> AbstractAsyncContextManager[Worker]:
        """Leaving it stops the process. Entering raises EngineFailed."""
        ...


class _Gone(Exception):
    """The process has ended; the text says why."""


class Tenancy:
    def __init__(
        self,
        stream: Stream,
        assign: Assign,
        supplies: Supplies,
        door: RingDoor,
        open_stream: Open,
        on_change: Callable[[], None],
    ) -> None:
        self._stream = stream
        self._assign = assign
        self._supplies = supplies
        self._door = door
        self._open = open_stream
        self._on_change = on_change
        self._links: asyncio.Queue[Link] = asyncio.Queue(1)
        self._words: asyncio.Queue[FromHolder] = asyncio.Queue()
        self._released = asyncio.Event()
        self.held = HeldStage(stream.peer, assign.name, assign.layers)

    def __repr__(self) -> str:
        return f"<Tenancy of {self.held}>"

    async def last(self) -> None:
        """Until the lease ends. Raises PeerError, Unreachable, Refused where that was the leader's doing."""
        with one_fault():
            async with beside(hearing=self._hear(), speaking=self._speak()):
                await self._run_until_released()
        await self._stream.finish()

    # -- the leader's stream -------------------------------------------------------------------------------

    async def _hear(self) -> None:
        while (frame := await self._stream.receive()) is not None:
            match messages.decode_from_leader(frame):
                case Link() as link:
                    self._take(link)
                case Release():
                    break
                case None:
                    pass  # of a later version
                case said:
                    raise PeerError(f"{type(said).__name__} in the middle of a lease")
        self._released.set()
        await asyncio.Event().wait()

    def _take(self, link: Link) -> None:
        """Only the newest counts; hearing never waits, or the leader's end would not be heard."""
        if self._words.qsize() > WORDS_MAX:
            raise PeerError("a leader that orders much and hears nothing")
        if self._links.full():
            self._links.get_nowait()
        self._links.put_nowait(link)

    async def _speak(self) -> None:
        while True:
            await self._stream.send(messages.encode(await self._words.get()))
            self._words.task_done()

    def _say(self, word: FromHolder, phase: Phase, fraction: float = 1.0) -> None:
        self._words.put_nowait(word)
        self.held = replace(self.held, phase=phase, fraction=fraction)
        self._on_change()

    # -- the stage -----------------------------------------------------------------------------------------

    async def _run_until_released(self) -> None:
        try:
            async with asyncio.TaskGroup() as tasks:
                running = tasks.create_task(self._run(), name=f"stage for {short(self._stream.peer)}")
                releasing = tasks.create_task(self._released.wait())
                await asyncio.wait((running, releasing), return_when=asyncio.FIRST_COMPLETED)
                running.cancel()
                releasing.cancel()
        except* (MeshError, _Gone) as group:
            reason = str(first_of(group))
            logger.warning("%s of %s are lost: %s", self.held.layers, self.held.model, reason)
            self._words.put_nowait(Lost(reason=shortened(reason)))
        await self._flush()

    async def _flush(self) -> None:
        try:
            async with asyncio.timeout(LAST_WORD_SECONDS_MAX):
                await self._words.join()
        except TimeoutError:
            raise Unreachable("the leader does not listen") from None

    async def _run(self) -> None:
        async with (
            self._supplies.obtain(self._assign, self._report("fetching", Fetching)) as file,
            self._supplies.launch(self._assign, file, self._report("loading", Loading)) as worker,
        ):
            ready = await worker.wait_until_ready()
            memory = max(0, ready.resident_bytes)
            self.held = replace(self.held, memory_bytes=memory)
            self._say(Ready(memory_bytes=memory), "ready")
            async with beside(sessions=self._run_sessions(ready.socket_path)):
                raise _Gone(await worker.wait_for_end())

    def _report(self, phase: Phase, word: Callable[..., Fetching | Loading]) -> Callable[[float], None]:
        def report(fraction: float) -> None:
            fraction = min(1.0, max(0.0, fraction))
            if fraction >= told[0] + STEP:
                told[0] = fraction
                self._say(word(fraction=fraction), phase, fraction)

        told = [-STEP]
        return report

    # -- sessions of its ring ------------------------------------------------------------------------------

    async def _run_sessions(self, socket_path: str) -> None:
        """One after the other: a new link ends the session before it."""
        link = await self._links.get()
        while True:
            async with asyncio.TaskGroup() as tasks:
                session = tasks.create_task(self._session(link, socket_path), name="session")
                newer = tasks.create_task(self._links.get(), name="next session")
                await asyncio.wait((session, newer), return_when=asyncio.FIRST_COMPLETED)
                if session.done():
                    over = Unlinked(session=link.session, reason=shortened(session.result()))
                    self._say(over, "ready")
                session.cancel()
                link = await newer

    async def _session(self, link: Link, socket_path: str) -> str:
        """Returns why it ended."""
        ring = self._assign.ring
        here = RingHello(ring=ring, session=link.session, stage=self._assign.stage)
        there = RingHello(ring=ring, session=link.session, stage=link.following_stage)
        try:
            async with (
                asyncio.timeout(LINK_SECONDS_MAX) as patience,
                self._door.expect(here, node_id(link.previous)) as arrived,
                ring_to(node_id(link.following), there, self._open) as outgoing,
                child_socket(socket_path) as child,
            ):
                incoming = await arrived
                patience.reschedule(None)
                self._say(Linked(session=link.session), "linked")
                return await bridge(child, incoming, outgoing)
        except (Unreachable, Refused, PeerError) as fault:
            return str(fault)
        except TimeoutError:
            return f"the stages before and after were not both connected within {LINK_SECONDS_MAX:.0f} s"
        except OSError as error:
            return f"the stage's process takes no connection: {error.strerror or error}"
