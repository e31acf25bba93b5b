"""A town of whole nodes: real `Mesh` services over a network in memory, in virtual time, without HTTP.

`in_town` runs a story and checks what each story must leave behind: no timer, no task, no unhandled error.
"""

import asyncio
import math
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager, suppress
from random import Random
from typing import Any

from mesh_llm.core.errors import DiskFull
from mesh_llm.core.ids import NodeId
from mesh_llm.core.offers import ModelOffer, ServedOffer
from mesh_llm.mesh.admission import invites
from mesh_llm.mesh.admission.hello import Hello, encode_hello
from mesh_llm.mesh.admission.ledger import Ledger, founded
from mesh_llm.mesh.entering import enter
from mesh_llm.mesh.network.memory_transport import MemoryNetwork
from mesh_llm.mesh.service import Description, Mesh
from mesh_llm.mesh.transport import Connection, Kind, Stream, Transport, Unreachable
from mesh_llm.runtime.bell import Bell
from mesh_llm.runtime.clock import Clock
from mesh_llm.runtime.tasks import unwrapped
from tests.mesh.members import NONCE, NOW, key
from tests.simulation.virtual_time import VirtualTimeLoop

DAY = 86_400


class LoopClock(Clock):
    """Virtual time, for everybody alike."""

    def monotonic(self) -> float:
        return asyncio.get_running_loop().time()

    def epoch(self) -> float:
        return NOW + self.monotonic()


class Resident:
    """A node of the town: what `node/` builds around a mesh, in small. It may live several times."""

    def __init__(self, town: "Town", number: int) -> None:
        self.name = f"node {number}"
        self.key = key(number)
        self.kept: list[Ledger] = []
        """All that was ever written to its home."""
        self.models: tuple[str, ...] = (f"model {number}",)
        self.role = "server"
        self.busy = 0
        self.disk_is_full = False
        self.answers: dict[Kind, Callable[[Stream], Awaitable[None]]] = {}
        self.changes = Bell()
        self.mesh: Mesh
        self.transport: Transport
        self._town = town
        self._life: asyncio.Task[None] | None = None

    @property
    def id(self) -> NodeId:
        return self.key.node

    async def live(self, ledger: Ledger | None = None, *tokens: str) -> None:
        """Begin, as a member by this record or by one of these tokens. Raises InviteRefused."""
        begun: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._life = self._town.tasks.create_task(self._live(ledger, tokens, begun), name=self.name)
        await begun

    async def end(self) -> None:
        """As a process that is told to stop at once: connections are closed, nobody is told of a leave."""
        if self._life is not None:
            self._life.cancel()
            await asyncio.wait([self._life])

    async def leave(self) -> None:
        await self.mesh.leave()
        await self.end()

    async def die(self) -> None:
        """As with kill -9."""
        self._town.network.kill(self.id)
        await self.end()

    def neighbours(self) -> set[NodeId]:
        return {neighbour.advert.node for neighbour in self.mesh.neighbours()}

    def offers(self) -> dict[NodeId, tuple[str, ...]]:
        """What the others serve, as this node knows it."""
        return {
            neighbour.advert.node: tuple(served.offer.name for served in neighbour.advert.models)
            for neighbour in self.mesh.neighbours()
        }

    def serve(self, *models: str) -> None:
        self.models = models
        self.changes.ring()

    def invite(self, *, ttl_s: int = DAY, once: bool = False) -> str:
        return self.mesh.invite(ttl_s, once=once)

    async def asks(self, node: NodeId, question: bytes = b"who are you?") -> bytes | None:
        """Through a tunnel. Raises Unreachable, Refused."""
        async with asyncio.timeout(30), self.mesh.tunnel(node) as stream:
            await stream.send(question)
            await stream.finish()
            return await stream.receive()

    async def _live(
        self, ledger: Ledger | None, tokens: tuple[str, ...], begun: "asyncio.Future[None]"
    ) -> None:
        async with self._town.network.transport(self.id) as self.transport:
            try:
                if ledger is None:
                    read = [invites.read(token) for token in tokens]
                    ledger = await enter(read, self.transport, "1", self._town.clock.epoch())
            except Exception as error:  # noqa: BLE001 - it is raised by `live`
                begun.set_exception(error)
                return
            self.kept.append(ledger)
            self.mesh = self._made(ledger)
            begun.set_result(None)
            await self.mesh.run()

    def _made(self, ledger: Ledger) -> Mesh:
        return Mesh(
            self.key,
            ledger,
            self.transport,
            clock=self._town.clock,
            chance=Random(f"{self.name} {len(self.kept)}"),
            keep=self._keep,
            describe=self._describe,
            answers={Kind.TUNNEL: self._answer_tunnel} | self.answers,
            busy=lambda: self.busy,
            changes=self.changes,
        )

    def _keep(self, ledger: Ledger) -> None:
        if self.disk_is_full:
            raise DiskFull("There is no room for mesh.json. Free some.")
        self.kept.append(ledger)

    def _describe(self) -> Description:
        served = tuple(ServedOffer(ModelOffer(name), ready=True) for name in self.models)
        return Description(self.name, self.role, "1", models=served)

    async def _answer_tunnel(self, stream: Stream) -> None:
        question = await stream.receive()
        await stream.send(self.name.encode() + b" heard " + (question or b"nothing"))
        await stream.finish()


class Town:
    def __init__(self, tasks: asyncio.TaskGroup, seed: int = 1, datagram_loss: float = 0.0) -> None:
        self.tasks = tasks
        self.network = MemoryNetwork(Random(seed), datagram_loss=datagram_loss)
        self.clock = LoopClock()
        self.residents: list[Resident] = []

    def resident(self) -> Resident:
        """One who does not live yet."""
        self.residents.append(Resident(self, len(self.residents) + 1))
        return self.residents[-1]

    async def founder(self) -> Resident:
        node = self.resident()
        await node.live(founded(node.id, NONCE))
        return node

    async def guest(self, *tokens: str) -> Resident:
        node = self.resident()
        await node.live(None, *tokens)
        return node

    async def mesh_of(self, count: int) -> list[Resident]:
        """The first founds a mesh, the others come with its token; they have all seen each other."""
        nodes = [await self.founder()]
        token = nodes[0].invite()
        for _ in range(count - 1):
            nodes.append(await self.guest(token))
        await until(lambda: all_see_each_other(nodes), within_s=20)
        return nodes

    @asynccontextmanager
    async def voice(self, number: int = 90) -> AsyncGenerator["Voice"]:
        """Somebody who speaks by hand what a node would never say; a stranger at first."""
        async with self.network.transport(key(number).node) as transport:
            yield Voice(self, number, transport)

    @asynccontextmanager
    async def insider(self) -> AsyncGenerator["Voice"]:
        """A voice that the first resident has let in."""
        async with self.voice() as voice:
            await voice.join(self.residents[0].invite())
            yield voice

    def cut(self, ones: list[Resident], others: list[Resident]) -> None:
        for one in ones:
            for other in others:
                self.network.cut(one.id, other.id)

    def mend(self, ones: list[Resident], others: list[Resident]) -> None:
        for one in ones:
            for other in others:
                self.network.mend(one.id, other.id)


class Voice:
    def __init__(self, town: Town, number: int, transport: Transport) -> None:
        self.key = key(number)
        self.transport = transport
        self.certificate = b""
        self._town = town

    @property
    def id(self) -> NodeId:
        return self.key.node

    async def join(self, token: str) -> Ledger:
        ledger = await enter([invites.read(token)], self.transport, "1", self._town.clock.epoch())
        self.certificate = ledger.certificate
        return ledger

    async def call(self, node: Resident) -> Connection:
        """Without a word."""
        return await self.transport.connect(node.id, node.transport.addresses)

    async def greet(self, node: Resident, **said: Any) -> Connection:
        """As a member. Raises Refused."""
        connection = await self.call(node)
        hello = Hello(**{"certificate": self.certificate, "program_version": "1"} | said)
        await self.say(connection, Kind.HELLO, encode_hello(hello))
        return connection

    async def answer(self, *said: bytes) -> None:
        """Take one connection, and give these frames in answer to each stream on it."""
        with suppress(Unreachable):
            connection = await self.transport.accept()
            while True:
                stream = await connection.accept()
                await stream.receive()
                for frame in said:
                    await stream.send(frame)
                await stream.finish()
                await stream.receive()
                await stream.close()

    async def say(self, connection: Connection, kind: Kind, *frames: bytes) -> list[bytes]:
        """On a stream of its own; returns the answer. Raises Refused, Unreachable."""
        async with asyncio.timeout(30), connection.stream(kind) as stream:
            for frame in frames:
                await stream.send(frame)
            await stream.finish()
            answer: list[bytes] = []
            while (frame := await stream.receive()) is not None:
                answer.append(frame)
            return answer


def all_see_each_other(nodes: list[Resident]) -> bool:
    everybody = {node.id for node in nodes}
    return all(node.neighbours() == everybody - {node.id} for node in nodes)


async def until(is_it: Callable[[], bool], *, within_s: float) -> float:
    """Returns after how many (virtual) seconds it was so."""
    loop = asyncio.get_running_loop()
    began = loop.time()
    async with asyncio.timeout(within_s):
        while not is_it():  # noqa: ASYNC110 - virtual time costs nothing
            await asyncio.sleep(0.05)
    return loop.time() - began


@asynccontextmanager
async def town(seed: int = 1, datagram_loss: float = 0.0) -> AsyncGenerator[Town]:
    with unwrapped():
        async with asyncio.TaskGroup() as tasks:
            place = Town(tasks, seed, datagram_loss)
            yield place
            for node in place.residents:
                await node.end()


def in_town(story: Callable[[Town], Coroutine[Any, Any, None]], *, seed: int = 1, loss: float = 0.0) -> None:
    """Runs a story in virtual time. At its end nothing may be left behind."""

    async def main() -> None:
        loop = asyncio.get_running_loop()
        unhandled: list[dict[str, Any]] = []
        loop.set_exception_handler(lambda _, context: unhandled.append(context))
        async with town(seed, loss) as place:
            await story(place)
        await asyncio.sleep(60)  # virtual: what was on its way has arrived or never will
        assert unhandled == []
        assert asyncio.all_tasks() == {asyncio.current_task()}
        assert timers_of(loop) == []

    with asyncio.Runner(loop_factory=VirtualTimeLoop) as runner:
        runner.run(main())


def timers_of(loop: asyncio.AbstractEventLoop) -> list[asyncio.TimerHandle]:
    """Those that will still fire."""
    timers: list[asyncio.TimerHandle] = vars(loop)["_scheduled"]
    return [timer for timer in timers if not timer.cancelled() and math.isfinite(timer.when())]
