"""What comes through tunnels, as the answering gateway meets it."""

import asyncio
import json
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager

import aiohttp
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mesh_llm.core.limits import REQUEST_BODY_BYTES_MAX
from mesh_llm.gateway.app import Gateway
from mesh_llm.gateway.backend import Backend
from mesh_llm.gateway.tunnel import AnswerHead, QuestionHead, decode_answer, encode, frames_of
from mesh_llm.gateway.tunnel_server import QUESTIONS_OF_PEER_MAX
from mesh_llm.mesh.transport import PeerError
from tests.gateway.broken_engine import CHUNK, LAST, answers_well, broken_engine, floods, hangs
from tests.gateway.engine import NAME, a_backend
from tests.gateway.meshes import ASKER, FIRST, PipeStream, pair
from tests.gateway.serving import serving

PATH = "/v1/chat/completions"
CHAT = {"messages": [{"role": "user", "content": "hi"}], "stream": True}


class Tunnels:
    """Opens tunnels to one gateway."""

    def __init__(self, gateway: Gateway, url: str, tasks: asyncio.TaskGroup) -> None:
        self.gateway = gateway
        self.url = url
        self.tasks = tasks

    def open(self) -> tuple[PipeStream, asyncio.Task[None]]:
        mine, theirs = pair(ASKER, FIRST)
        return mine, self.tasks.create_task(self._answer(theirs))

    async def _answer(self, stream: PipeStream) -> None:
        try:
            await self.gateway.answer(stream)
        finally:
            await stream.close()

    async def ask(self, body: object, path: str = PATH, model: str = "") -> PipeStream:
        stream, _ = self.open()
        sent = json.dumps(body).encode()
        await stream.send(encode(QuestionHead(path=path, model=model, size=len(sent))))
        for frame in frames_of(sent):
            await stream.send(frame)
        return stream


@asynccontextmanager
async def tunnels(backends: Sequence[Backend], **settings) -> AsyncGenerator[Tunnels]:
    async with (
        asyncio.timeout(20),
        serving(backends, **settings) as (gateway, url),
        asyncio.TaskGroup() as tasks,
    ):
        yield Tunnels(gateway, url, tasks)


async def read_all(stream: PipeStream) -> tuple[AnswerHead, list[bytes]]:
    head = decode_answer(await stream.receive())
    frames: list[bytes] = []
    while (frame := await stream.receive()) is not None:
        frames.append(frame)
    return head, frames


async def test_a_stream_comes_as_the_engine_gave_it():
    async with broken_engine(answers_well) as engine, tunnels([a_backend(engine.endpoint)]) as through:
        head, frames = await read_all(await through.ask(CHAT))
    assert (head.status, head.content_type, head.busy) == (200, "text/event-stream", 1)
    assert b"".join(frames) == CHUNK + LAST
    statistics = through.gateway.statistics()
    assert (statistics.requests, statistics.models[0].completion_tokens) == (1, 5)


async def test_a_whole_answer_and_a_refusal_come_whole():
    async with broken_engine(answers_well) as engine, tunnels([a_backend(engine.endpoint)]) as through:
        head, frames = await read_all(await through.ask(CHAT | {"stream": False}))
        assert (head.status, head.content_type) == (200, "application/json")
        assert json.loads(b"".join(frames))["choices"][0]["message"]["content"] == "word "
        head, frames = await read_all(await through.ask({"messages": []}))
        assert head.status == 400 and b"messages" in b"".join(frames)
        head, frames = await read_all(await through.ask({}, "/v1/messages"))
        assert head.status == 400 and json.loads(b"".join(frames))["type"] == "error"


async def test_the_model_is_the_one_that_the_asker_resolved():
    async with (
        broken_engine(answers_well) as engine,
        tunnels([a_backend(engine.endpoint), a_backend(engine.endpoint, name="other", bytes=1)]) as through,
    ):
        await read_all(await through.ask(CHAT | {"model": "only the asker knows"}, model="other"))
        head, _ = await read_all(await through.ask(CHAT, model="gone"))
    assert engine.bodies[0]["model"] == "other"
    assert head.status == 404


async def test_nothing_goes_on_to_a_third_node():
    class Others:
        def servers(self):
            raise AssertionError("others were looked for")

        def traffic(self):
            return {}

    async with tunnels([], mesh=Others()) as through:
        head, frames = await read_all(await through.ask(CHAT, model="far"))
    assert head.status == 404 and b"No model is served here" in b"".join(frames)


@pytest.mark.parametrize("path", ["/v1/models", "/metrics", "/health", "/slots", "/", ""])
async def test_only_what_models_answer_is_answered(path):
    async with tunnels([]) as through:
        head, _ = await read_all(await through.ask({}, path))
    assert head.status == 404


async def test_no_key_is_asked_of_a_member():
    async with (
        broken_engine(answers_well) as engine,
        tunnels([a_backend(engine.endpoint)], api_key="s3") as through,
    ):
        head, _ = await read_all(await through.ask(CHAT))
    assert head.status == 200


async def test_a_body_beyond_the_bound_is_refused_before_it_is_taken():
    async with tunnels([]) as through:
        stream, _ = through.open()
        await stream.send(encode(QuestionHead(path=PATH, model="", size=REQUEST_BODY_BYTES_MAX + 1)))
        head, _ = await read_all(stream)
    assert head.status == 413


async def test_an_asker_that_leaves_frees_the_slot():
    async with broken_engine(hangs) as engine, tunnels([a_backend(engine.endpoint)]) as through:
        stream = await through.ask(CHAT)
        await engine.asked.wait()
        assert through.gateway.busy() == 1
        await stream.close()
        await engine.left.wait()
        await through.gateway.wait_idle()
        assert through.gateway.busy() == 0


async def test_an_asker_that_leaves_in_the_middle_of_its_body_is_forgotten():
    async with tunnels([]) as through:
        stream, answering = through.open()
        await stream.send(encode(QuestionHead(path=PATH, model="", size=10)))
        await stream.send(b"half")
        await stream.close()
        await answering


async def test_an_asker_that_ends_its_side_is_answered():
    async with broken_engine(answers_well) as engine, tunnels([a_backend(engine.endpoint)]) as through:
        stream = await through.ask(CHAT)
        await stream.finish()
        head, frames = await read_all(stream)
    assert head.status == 200 and b"".join(frames) == CHUNK + LAST


async def test_an_asker_that_takes_nothing_is_given_up():
    async with (
        broken_engine(floods) as engine,
        tunnels([a_backend(engine.endpoint)], stall_seconds_max=0.05) as through,
    ):
        await through.ask(CHAT)
        await engine.left.wait()


async def test_a_node_that_leaves_sends_others_elsewhere_and_finishes_what_it_began():
    async with broken_engine(hangs) as engine, tunnels([a_backend(engine.endpoint)]) as through:
        begun = await through.ask(CHAT)
        await engine.asked.wait()
        through.gateway.drain()
        head, _ = await read_all(await through.ask(CHAT))
        assert (head.status, head.retry_after) == (503, 5)
        assert [offer.ready for offer in through.gateway.offers()] == [False]
        assert through.gateway.busy() == 1
        idle = through.tasks.create_task(through.gateway.wait_idle())
        await asyncio.sleep(0)
        assert not idle.done()
        await begun.close()
        await idle


async def test_one_node_may_have_only_so_many_questions_under_way():
    async with broken_engine(hangs) as engine, tunnels([a_backend(engine.endpoint)]) as through:
        waiting = [through.open() for _ in range(QUESTIONS_OF_PEER_MAX)]
        head, _ = await read_all(await through.ask(CHAT))
        assert (head.status, head.retry_after) == (503, 5)
        for stream, answering in waiting:
            await stream.close()
            await answering
        again = await through.ask(CHAT)
        await engine.asked.wait()
        await again.close()


async def test_more_than_was_announced_breaks_the_protocol():
    async with broken_engine(hangs) as engine, serving([a_backend(engine.endpoint)]) as (gateway, _):
        mine, theirs = pair(ASKER, FIRST)
        body = json.dumps(CHAT).encode()
        await mine.send(encode(QuestionHead(path=PATH, model="", size=len(body))))
        await mine.send(body)
        await mine.send(b"more")
        with pytest.raises(PeerError, match="longer than announced"):
            await gateway.answer(theirs)
        await gateway.wait_idle()


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(st.binary(min_size=1, max_size=60), max_size=4), st.sampled_from([PATH, "/v1/messages", "/x"])
)
def test_hostile_questions_end_as_a_broken_protocol_or_a_refusal(frames, path):
    async def converse() -> None:
        async with asyncio.timeout(5), serving([]) as (gateway, _):
            size = sum(map(len, frames))
            for first in (encode(QuestionHead(path=path, model="", size=size)), b"\x80"):
                mine, theirs = pair(ASKER, FIRST)
                for frame in (first, *frames):
                    await mine.send(frame)
                await mine.finish()
                try:
                    await gateway.answer(theirs)
                except PeerError:
                    continue
                head, _ = await read_all(mine)
                assert 400 <= head.status < 500

    asyncio.run(converse())


async def test_served_answers_are_counted_apart():
    async with broken_engine(answers_well) as engine, tunnels([a_backend(engine.endpoint)]) as through:
        await read_all(await through.ask(CHAT))
        async with aiohttp.ClientSession() as session, session.get(f"{through.url}/metrics") as response:
            text = await response.text()
    assert f'mesh_llm_answers_total{{model="{NAME}",way="served"}} 1.0' in text
