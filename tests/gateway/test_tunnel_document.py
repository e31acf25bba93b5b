"""The example conversation of docs/protocols/tunnel.md, replayed against both sides."""

import asyncio
import json
import re
from pathlib import Path
from typing import Any

import aiohttp
import msgspec

from mesh_llm.gateway.tunnel import decode_answer, decode_question
from tests.gateway.broken_engine import broken_engine
from tests.gateway.engine import NAME, a_backend
from tests.gateway.meshes import ASKER, FIRST, PipeStream, a_node, an_offer, asker, pair
from tests.gateway.serving import serving

DOCUMENT = Path(__file__).parents[2] / "docs" / "protocols" / "tunnel.md"


def conversation() -> list[tuple[str, Any]]:
    (block,) = re.findall(r"```tunnel\n(.*?)```", DOCUMENT.read_text("utf-8"), re.DOTALL)
    lines = [line.split(" ", 1) for line in block.splitlines()]
    return [(who, None if said == "end" else json.loads(said)) for who, said in lines]


def frames(who: str) -> list[bytes | None]:
    return [_frame(said) for speaker, said in conversation() if speaker == who]


def _frame(said: Any) -> bytes | None:
    match said:
        case None:
            return None
        case str():
            return said.encode()
        case _:
            return msgspec.msgpack.encode(said)


async def play(stream: PipeStream, lines: list[bytes | None]) -> None:
    for frame in lines:
        await (stream.finish() if frame is None else stream.send(frame))


async def hear(stream: PipeStream) -> list[bytes | None]:
    heard: list[bytes | None] = []
    while not heard or heard[-1] is not None:
        heard.append(await stream.receive())
    return heard


async def test_a_server_answers_as_the_document_says():
    question, answer = frames(">"), frames("<")

    async def says_it(request: Any, response: Any) -> None:
        await response.prepare(request)
        for event in answer[1:-1]:
            await response.write(event)

    async with (
        asyncio.timeout(10),
        broken_engine(says_it) as engine,
        serving([a_backend(engine.endpoint)]) as (gateway, _),
        asyncio.TaskGroup() as tasks,
    ):
        mine, theirs = pair(ASKER, FIRST)
        tasks.create_task(gateway.answer(theirs))
        await play(mine, question[:-1])
        head, *body, end = await hear(mine)
        await mine.finish()
    assert decode_answer(head) == decode_answer(answer[0])
    assert (b"".join(body), end) == (b"".join(answer[1:-1]), None)


async def test_an_asker_asks_as_the_document_says():
    question, answer = frames(">"), frames("<")
    heard: list[bytes | None] = []

    async def server(stream: PipeStream) -> None:
        heard.extend([await stream.receive(), await stream.receive()])
        await play(stream, answer)
        heard.append(await stream.receive())

    async with (
        asyncio.timeout(10),
        asker(a_node(FIRST, server, an_offer(NAME))) as asked,
        aiohttp.ClientSession() as session,
        session.post(f"{asked.client.url}/v1/chat/completions", data=question[1]) as response,
    ):
        assert response.headers["Content-Type"] == "text/event-stream"
        assert await response.read() == b"".join(answer[1:-1])
    assert decode_question(heard[0]) == decode_question(question[0])
    assert heard[1:] == question[1:]
