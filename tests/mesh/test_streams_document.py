"""The example conversations of docs/protocols/streams.md, replayed with the real streams on either side."""

import re
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from mesh_llm.core.ids import NodeId
from mesh_llm.mesh.network.frames import BYTES_MAX
from mesh_llm.mesh.network.streams import FramedStream
from mesh_llm.mesh.transport import FRAME_BYTES_MAX, VERSIONS, Kind, Refused

DOCUMENT = (Path(__file__).parents[2] / "docs" / "protocols" / "streams.md").read_text("utf-8")

PEER = NodeId("a" * 64)


def conversations() -> list[dict[str, bytes]]:
    """Of each, what either side sends."""
    found = []
    for block in re.findall(r"```streams\n(.*?)```", DOCUMENT, re.DOTALL):
        said = {">": b"", "<": b""}
        for side, digits in re.findall(r"^([<>]) ((?:[0-9a-f]+ )+) ", block, re.MULTILINE):
            said[side] += bytes.fromhex(digits)
        found.append(said)
    return found


QUESTION, FUTURE = conversations()


@dataclass
class ScriptedPipe:
    """Gives what the document says, byte by byte, and keeps what is answered."""

    theirs: bytes
    ours: bytes = b""
    calls: list[str] = field(default_factory=list)

    async def read(self, size: int) -> bytes:
        piece, self.theirs = self.theirs[:1], self.theirs[1:]
        return piece

    async def write(self, data: bytes) -> None:
        self.ours += data

    async def finish(self) -> None:
        self.calls.append("finish")

    async def abort(self) -> None:
        self.calls.append("abort")

    async def done(self, rest: bytes) -> None:
        self.calls.append("done")


async def test_the_question_as_its_asker_sees_it():
    pipe = ScriptedPipe(QUESTION["<"])
    stream = FramedStream(pipe, PEER)
    await stream.begin(Kind.TUNNEL)
    await stream.send(b"hello")
    await stream.finish()
    assert await stream.receive() == b"hi"
    assert await stream.receive() is None
    await stream.close()
    assert pipe.ours == QUESTION[">"]
    assert pipe.calls == ["finish", "done"]


async def test_the_question_as_its_answerer_sees_it():
    pipe = ScriptedPipe(QUESTION[">"])
    stream = FramedStream(pipe, PEER)
    assert await stream.expect()
    assert stream.kind is Kind.TUNNEL
    assert await stream.receive() == b"hello"
    assert await stream.receive() is None
    await stream.send(b"hi")
    await stream.finish()
    await stream.close()
    assert pipe.ours == QUESTION["<"]


async def test_a_version_from_the_future_is_answered_as_the_document_says():
    pipe = ScriptedPipe(FUTURE[">"])
    assert not await FramedStream(pipe, PEER).expect()
    assert pipe.ours == FUTURE["<"]


async def test_the_refusal_is_read_as_the_document_says():
    stream = FramedStream(ScriptedPipe(FUTURE["<"]), PEER)
    with pytest.raises(Refused, match=r"^tunnel streams are spoken here in version 1, not 9$"):
        await stream.receive()


def test_the_document_names_every_kind_and_limit():
    for kind, version in VERSIONS.items():
        assert f"| {kind.value} | {kind.name.lower()} | {version} |" in DOCUMENT
    assert f"{FRAME_BYTES_MAX:,}" in DOCUMENT
    assert f"{BYTES_MAX[3]:,}" in DOCUMENT
