"""The example conversations of docs/protocols/stages.md, replayed against both sides."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from mesh_llm.core.ids import NodeId
from mesh_llm.engine.ring import frames
from mesh_llm.mesh.neighbour import Reach
from mesh_llm.mesh.transport import Kind, Stream
from mesh_llm.models.records import Records
from mesh_llm.models.stages import chunks
from mesh_llm.models.stages.manifests import Manifests
from mesh_llm.splits import messages
from mesh_llm.splits.byte_serving import STREAMS_OF_PEER_MAX, ByteServer
from mesh_llm.splits.hosting import Hosting
from mesh_llm.splits.lease import Lease
from mesh_llm.splits.messages import Assign, Link, RingHello
from mesh_llm.splits.peer_ranges import PartFile, PeerRanges
from mesh_llm.splits.ring_door import RingDoor, ring_to
from mesh_llm.splits.surveying import Room, Surveyor
from tests.mesh.members import key
from tests.splits.landlords import ALandlord, holder, offering
from tests.splits.village import Answer, Village, until, village

DOCUMENT = (Path(__file__).parents[2] / "docs" / "protocols" / "stages.md").read_text("utf-8")

Line = tuple[str, bytes | None]


def conversation(name: str) -> list[Line]:
    (block,) = re.findall(rf"```{name}\n(.*?)```", DOCUMENT, re.DOTALL)
    lines = [line.split(" ", 1) for line in block.splitlines()]
    return [(who, None if said == "end" else frame(json.loads(said))) for who, said in lines]


def frame(said: Any) -> bytes:
    return said.encode() if isinstance(said, str) else msgspec.msgpack.encode(raw(said))


def raw(said: Any) -> Any:
    match said:
        case str() if said.startswith("0x"):
            return bytes.fromhex(said[2:])
        case dict():
            return {name: raw(value) for name, value in said.items()}
        case list():
            return [raw(value) for value in said]
        case _:
            return said


def meaning(data: bytes | None) -> Any:
    """Maps compare by what they say: fields that are left out have their defaults, which are None here."""
    try:
        said = msgspec.msgpack.decode(data or b"")
    except msgspec.MsgspecError:
        return data
    if not isinstance(said, dict):
        return data
    return {name: value for name, value in said.items() if value not in (None, "")}


async def play(stream: Stream, lines: list[Line], *, me: str) -> None:
    """Says the lines of `me`, and hears the other's."""
    for who, said in lines:
        if who == me:
            await (stream.finish() if said is None else stream.send(said))
        else:
            heard = await stream.receive()
            assert meaning(heard) == meaning(said), (heard, said)


def replaying(lines: list[Line]) -> tuple[Answer, list[bool]]:
    """The side that was asked, as the document says it; and whether it got to the end."""
    over: list[bool] = []

    async def answer(stream: Stream) -> None:
        await play(stream, lines, me="<")
        over.append(True)
        await stream.receive()  # the other side closes

    return answer, over


# -- leases --------------------------------------------------------------------------------------------------


async def test_a_holder_holds_a_stage_as_the_document_says(tmp_path: Path):
    async with village(2) as place:
        holder(place[2], tmp_path, place.is_member)
        rings: list[Stream] = []
        door = RingDoor()
        place[1].answers[Kind.RING] = door.answer
        session = bytes([1] * 16)
        async with (
            place[1].stream(place[2].id, Kind.STAGE) as stream,
            door.expect(RingHello(ring=bytes(range(16)), session=session, stage=0), place[2].id) as arrived,
        ):
            lease = conversation("lease")
            linking = [who for who, _ in lease].index(">", 1)
            await play(stream, lease[: linking + 1], me=">")
            there = RingHello(ring=bytes(range(16)), session=session, stage=1)
            async with ring_to(place[2].id, there, place[1].stream):
                await play(stream, lease[linking + 1 :], me=">")
                rings.append(await arrived)
            assert await stream.receive() is None or rings


async def test_a_leader_leases_a_stage_as_the_document_says():
    lines = conversation("lease")
    async with village(2) as place:
        place[2].answers[Kind.STAGE], over = replaying(lines)
        said = [messages.decode_from_leader(data) for who, data in lines if who == ">" and data]
        assign, link = said[0], said[1]
        assert isinstance(assign, Assign) and isinstance(link, Link)
        async with Lease.open(place[2].id, assign, place[1].stream) as lease:
            for who, data in lines[1:]:
                if who == "<" and data:
                    assert await lease.hear() == messages.decode_from_holder(data)
                elif data == messages.encode(link):
                    await lease.link(link)
            await lease.release()
            await until(lambda: bool(over))


# -- surveys -------------------------------------------------------------------------------------------------


class Measured:
    """A mesh that has measured one node."""

    def __init__(self, place: Village) -> None:
        self.stream = place[2].stream

    def reach_of(self, node: NodeId) -> Reach | None:
        return Reach(0.25, is_relayed=False) if node == key(3).node else None


async def test_a_survey_is_answered_as_the_document_says(tmp_path: Path):
    async with village(2) as place:
        surveyor = Surveyor(
            Measured(place), offering(lambda: Room(1_000_000, 5e9)), lambda node: node == key(3).node
        )
        hosting = Hosting(ALandlord(tmp_path), surveyor, RingDoor(), place[2].stream, lambda: None)
        place[2].answers[Kind.STAGE] = hosting.answer
        async with place[1].stream(place[2].id, Kind.STAGE) as stream:
            await play(stream, conversation("survey"), me=">")


async def test_a_survey_is_asked_for_as_the_document_says():
    async with village(2) as place:
        question, answer, *_ = conversation("survey")
        place[2].answers[Kind.STAGE], over = replaying([question, (">", None), answer, ("<", None)])
        surveyor = Surveyor(place[1], offering(lambda: Room(0)), place.is_member)
        said = await surveyor.ask(place[2].id, [key(3).node, key(4).node])
        assert said == messages.decode_from_holder(answer[1] or b"")
        await until(lambda: bool(over))


# -- the ring ------------------------------------------------------------------------------------------------


async def test_a_ring_is_welcomed_and_opened_as_the_document_says():
    lines = conversation("ring")
    hello = messages.decode_ring_hello(lines[0][1] or b"")
    async with village(2) as place:
        door = RingDoor()
        place[2].answers[Kind.RING] = door.answer
        async with (
            door.expect(hello, place[1].id),
            place[1].stream(place[2].id, Kind.RING) as stream,
        ):
            await play(stream, lines, me=">")
        place[2].answers[Kind.RING], over = replaying(lines)
        async with ring_to(place[2].id, hello, place[1].stream):
            await until(lambda: bool(over))


def test_frames_of_the_ring_are_as_the_document_says():
    (block,) = re.findall(r"```frames\n(.*?)```", DOCUMENT, re.DOTALL)
    shape = frames.Shape(width=2, batch=4, sequences=2, context=16)
    encoded = [bytes.fromhex(line) for line in block.splitlines()]
    hello, step, broken = [frames.decode(data[frames.LENGTH_BYTES :], shape) for data in encoded]
    assert hello == frames.Hello(shape, layers=(3,))
    assert broken == frames.Broken("no memory")
    assert isinstance(step, frames.Step)
    assert (step.number, step.microseconds) == (7, (250,))
    assert step.commands == (frames.Command(frames.Operation.DROP, sequence=1, first=3),)
    assert np.array_equal(step.hidden, np.array([[1.0, -2.0]], np.float32))
    assert [frames.encode(each) for each in (hello, step, broken)] == encoded
    for limit in (frames.COMMANDS_MAX, frames.REASON_CHARACTERS_MAX, frames.STAGES_MAX):
        assert f"{limit:,}" in DOCUMENT


# -- bytes of files ------------------------------------------------------------------------------------------


async def test_bytes_are_given_as_the_document_says(tmp_path: Path):
    path = tmp_path / "file"
    path.write_bytes(b"twenty bytes of file")
    serving = ByteServer(
        key(2), {"sha256:5df1": [path]}.get, Manifests(Records(tmp_path / "notes", tmp_path))
    )
    async with village(2) as place:
        place[2].answers[Kind.BYTES] = serving.answer
        async with place[1].stream(place[2].id, Kind.BYTES) as stream:
            await play(stream, conversation("bytes"), me=">")


async def test_bytes_are_asked_for_as_the_document_says():
    async with village(2) as place:
        lines = [line for line in conversation("bytes") if line[1] is not None]
        place[2].answers[Kind.BYTES], over = replaying(lines)
        everybody: Callable[[NodeId], bool] = place.is_member
        asking = PeerRanges.open(
            "sha256:5df1", [PartFile(20)], lambda: [place[2].id], place[1].stream, everybody
        )
        async with asking as ranges:
            assert await ranges.read(0, 7, 5) == b"bytes"
        await until(lambda: bool(over))


def test_the_document_names_the_limits():
    for limit in (
        chunks.CHUNKS_MAX,
        STREAMS_OF_PEER_MAX,
        messages.PARTS_MAX,
        messages.NODES_MAX,
        messages.LAYERS_MAX,
        messages.REASON_CHARACTERS_MAX,
    ):
        assert f"{limit:,}" in DOCUMENT
    for message in messages.KNOWN - {"survey", "surveyed"}:
        assert f"`{message}`" in DOCUMENT
