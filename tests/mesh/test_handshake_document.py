"""The example conversation of docs/protocols/handshake.md, replayed against a real member, at the door and
before it; and the document's limits, compared with the code's."""

import asyncio
import re
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from random import Random

import pytest

from mesh_llm.mesh.admission.admission import Admission
from mesh_llm.mesh.admission.hello import Hello, Refusal, encode_hello
from mesh_llm.mesh.admission.ledger import KnownMember
from mesh_llm.mesh.network.memory_transport import MemoryNetwork, MemoryTransport
from mesh_llm.mesh.service import Description, Mesh
from mesh_llm.mesh.transport import Addresses, Connection, Kind, Refused
from mesh_llm.runtime.bell import Bell
from mesh_llm.runtime.clock import Clock
from tests.mesh.members import NOW, founder, key, key_of, let_in

DOCUMENT = (Path(__file__).parents[2] / "docs" / "protocols" / "handshake.md").read_text("utf-8")
VERSION = "0.3.0"
BOUND_S = 10
DOOR = Addresses(("memory:1",))
UNITS = {"": 1, "s": 1, "bytes": 1, "KiB": 1024, "MiB": 1024 * 1024}


@dataclass(frozen=True)
class Step:
    who: str
    does: str
    """A kind of stream, or `refuses`, or `closes`."""
    said: str


def conversation() -> list[Step]:
    (block,) = re.findall(r"```conversation\n(.*?)```", DOCUMENT, re.DOTALL)
    steps: list[Step] = []
    for words, lines in re.findall(r"^(\S.*)\n((?: .*\n)+)", block, re.MULTILINE):
        who, does = re.split(r": | ", words, maxsplit=1)
        text = " ".join(lines.split())
        steps.append(Step(who, does, text if does in ("refuses", "closes") else text.replace(" ", "")))
    return steps


def said(who: str, does: str) -> list[bytes]:
    return [bytes.fromhex(step.said) for step in conversation() if (step.who, step.does) == (who, does)]


class At(Clock):
    """The hour of the example."""

    def epoch(self) -> float:
        return NOW


@asynccontextmanager
async def alive(member: Admission, transport: MemoryTransport, *known: KnownMember) -> AsyncGenerator[Mesh]:
    mesh = Mesh(
        key_of(member),
        member.ledger.with_members(known),
        transport,
        clock=At(),
        chance=Random(7),
        keep=lambda _: None,
        describe=lambda: Description("a node", "server", VERSION),
        answers={},
        busy=lambda: 0,
        changes=Bell(),
    )
    async with asyncio.TaskGroup() as tasks:
        running = tasks.create_task(mesh.run())
        yield mesh
        await mesh.leave()
        running.cancel()


class Guests:
    """Those who come to the door, and say what the document has them say."""

    def __init__(self, transports: dict[str, MemoryTransport], door: MemoryTransport) -> None:
        self._transports = transports
        self._door = door
        self._connections: dict[str, Connection] = {}
        self._last = ""

    async def connection(self, who: str) -> Connection:
        if who not in self._connections:
            self._connections[who] = await self._transports[who].connect(self._door.me, DOOR)
        self._last = who
        return self._connections[who]

    async def ask(self, step: Step, answer: Step) -> None:
        connection = await self.connection(step.who)
        async with connection.stream(Kind[step.does]) as stream:
            await stream.send(bytes.fromhex(step.said))
            await stream.finish()
            if answer.does == "refuses":
                with pytest.raises(Refused) as refusal:
                    await stream.receive()
                assert str(refusal.value) == answer.said
            else:
                assert answer.does == step.does
                heard = await stream.receive()
                assert heard is not None and heard.hex() == answer.said
                assert await stream.receive() is None

    async def wait_for_goodbye(self, reason: str) -> None:
        assert await self._connections[self._last].wait_closed() == reason


async def test_a_door_says_what_the_document_has_it_say():
    network = MemoryNetwork(Random(7))
    async with (
        asyncio.timeout(BOUND_S),
        network.transport(key(1).node) as at_door,
        network.transport(key(2).node) as members,
        network.transport(key(3).node) as strangers,
    ):
        guests = Guests({"member": members, "stranger": strangers}, at_door)
        steps = conversation()
        async with alive(founder(1), at_door):
            while len(steps) > 1:
                step = steps.pop(0)
                if step.does == "closes":
                    await guests.wait_for_goodbye(step.said)
                else:
                    await guests.ask(step, steps.pop(0))
        (goodbye,) = steps
        await guests.wait_for_goodbye(goodbye.said)


async def test_a_member_that_dials_says_what_the_document_has_it_say():
    network = MemoryNetwork(Random(7))
    at_door, member = founder(1), let_in(founder(1), 2)
    known = KnownMember(at_door.me, at_door.certificate, DOOR, int(NOW))
    async with (
        asyncio.timeout(BOUND_S),
        network.transport(key(1).node) as door,
        network.transport(key(2).node) as members,
        alive(member, members, known),
    ):
        connection = await door.accept()
        stream = await connection.accept()
        assert stream.kind is Kind.HELLO
        assert await stream.receive() == said("member", "HELLO")[0]
        assert await stream.receive() is None
        await stream.send(said("door", "HELLO")[0])
        await stream.finish()
        await stream.close()
        assert await connection.receive_datagram()  # it takes the door for a member


def test_the_strangers_hello_is_a_good_one_of_another_mesh():
    stranger = founder(3)
    hello = Hello(stranger.certificate, VERSION, addresses=Addresses(("memory:3",)))
    assert encode_hello(hello) in said("stranger", "HELLO")
    assert founder(1).judge(stranger.certificate, key(3).node) is Refusal.FOREIGN


LIMITS = re.findall(r"^\| `([\w.]+)\.(\w+)` \| ([\d,]+) ?(\w*) \|", DOCUMENT, re.MULTILINE)


@pytest.mark.parametrize(("module", "name", "number", "unit"), LIMITS)
def test_the_documents_limits_are_the_codes(module: str, name: str, number: str, unit: str):
    limit = getattr(import_module(f"mesh_llm.mesh.{module}"), name)
    assert limit == int(number.replace(",", "")) * UNITS[unit]


def test_the_document_tells_its_limits():
    assert len(LIMITS) > 10
