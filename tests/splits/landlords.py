"""A landlord whose stages are small processes (`stage_child.py`): what the node wires around `Hosting`."""

import asyncio
import os
import sys
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from mesh_llm.core.errors import DoesNotFit, EngineFailed
from mesh_llm.core.ids import NodeId
from mesh_llm.mesh.transport import Kind
from mesh_llm.runtime.children import Child, describe_exit
from mesh_llm.splits.hosting import Hosting
from mesh_llm.splits.messages import Assign, Part, bytes_of
from mesh_llm.splits.ring_door import RingDoor
from mesh_llm.splits.surveying import Room, Surveyor
from tests.mesh.members import key
from tests.splits.village import Villager

RING = bytes(range(16))


def offering(room: Callable[[], Room]) -> Callable[[], Awaitable[Room]]:
    """What a surveyor tells of its node."""

    async def offer() -> Room:
        return room()

    return offer


def an_order(**changes: object) -> Assign:
    fields = {
        "ring": RING,
        "model": "sha256:5df1",
        "name": "a model",
        "parts": (Part(name="model.gguf", size=1000),),
        "holders": bytes_of([key(9).node]),
        "first": 2,
        "end": 5,
        "stage": 1,
        "context": 4096,
        "sequences": 4,
        "batch": 512,
        "kv_type": "f16",
    }
    return Assign(**fields | changes)  # type: ignore[arg-type]


@dataclass(frozen=True)
class Listening:
    socket_path: str
    resident_bytes: int = 4096


class Process:
    def __init__(self, child: Child, socket_path: str) -> None:
        self.child = child
        self._socket_path = socket_path

    async def wait_until_ready(self) -> Listening:
        async for _ in self.child.lines():
            return Listening(self._socket_path)
        raise EngineFailed("the stage did not start")

    async def wait_for_end(self) -> str:
        return describe_exit(await self.child.wait())


@dataclass
class ALandlord:
    folder: Path
    memory: int = 1_000_000
    """Free."""
    taken: int = 0
    fetching: asyncio.Event = field(default_factory=asyncio.Event)
    """Set: a file is there at once."""
    files: int = 0
    """In use now."""
    processes: list[Process] = field(default_factory=list)
    """That run now."""
    failure: Exception | None = None
    """Of the next file."""
    orders: list[Assign] = field(default_factory=list)
    """That were let in."""
    started: int = 0

    def __post_init__(self) -> None:
        self.fetching.set()

    @contextmanager
    def admit(self, leader: NodeId, assign: Assign) -> Generator[None]:
        if assign.context > self.memory - self.taken:
            raise DoesNotFit(f"{assign.layers} need {assign.context} bytes. Stop something.")
        self.taken += assign.context
        self.orders.append(assign)
        try:
            yield
        finally:
            self.taken -= assign.context

    def memory_bytes_free(self) -> int:
        return self.memory - self.taken

    @asynccontextmanager
    async def obtain(self, assign: Assign, on_fetched: Callable[[float], None]) -> AsyncGenerator[Path]:
        on_fetched(0.0)
        await self.fetching.wait()
        if self.failure is not None:
            raise self.failure
        on_fetched(1.0)
        self.files += 1
        try:
            yield self.folder / "a stage's file"
        finally:
            self.files -= 1

    @asynccontextmanager
    async def launch(
        self, assign: Assign, file: Path, on_loaded: Callable[[float], None]
    ) -> AsyncGenerator[Process]:
        self.started += 1
        socket_path = str(self.folder / f"{self.started}.sock")
        argv = [sys.executable, "-S", "-E", str(Path(__file__).with_name("stage_child.py")), socket_path]
        child = await Child.spawn("stage", argv, os.environ, b"")
        on_loaded(0.5)
        process = Process(child, socket_path)
        self.processes.append(process)
        try:
            yield process
        finally:
            self.processes.remove(process)
            await child.stop()


def holder(
    villager: Villager, folder: Path, is_member: Callable[[NodeId], bool]
) -> tuple[Hosting, ALandlord]:
    """The villager holds stages for others from now on."""
    folder.mkdir(exist_ok=True)
    landlord = ALandlord(folder)
    door = RingDoor()
    surveyor = Surveyor(villager, offering(lambda: Room(landlord.memory_bytes_free(), 5e9)), is_member)
    hosting = Hosting(landlord, surveyor, door, villager.stream, lambda: None)
    villager.answers |= {Kind.STAGE: hosting.answer, Kind.RING: door.answer}
    return hosting, landlord
