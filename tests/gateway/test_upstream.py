import json

import pytest

from mesh_llm.gateway.upstream import HttpUpstream, UpstreamLost
from tests.gateway.broken_engine import (
    CHUNK,
    LAST,
    answers_well,
    broken_engine,
    dies_before_its_head,
    dies_in_mid_stream,
    redirects,
    talks_for_ever,
)

BODY = json.dumps({}).encode()
PATH = "/v1/chat/completions"


@pytest.fixture
async def upstream():
    upstream = HttpUpstream()
    await upstream.open()
    yield upstream
    await upstream.close()


async def test_bytes_arrive_as_they_were_sent(upstream):
    async with broken_engine(answers_well) as engine, upstream.send(engine.endpoint, PATH, BODY) as answer:
        assert answer.status == 200
        assert await answer.whole() == CHUNK + LAST


async def test_a_redirect_is_not_followed(upstream):
    async with broken_engine(redirects) as engine:
        async with upstream.send(engine.endpoint, PATH, BODY) as answer:
            assert answer.status == 307
        assert len(engine.bodies) == 1


async def test_leaving_hangs_up(upstream):
    async with broken_engine(talks_for_ever) as engine:
        async with upstream.send(engine.endpoint, PATH, BODY) as answer:
            assert await anext(answer.chunks()) == CHUNK
        await engine.left.wait()


@pytest.mark.parametrize("behaviour", [dies_before_its_head, dies_in_mid_stream])
async def test_a_break_is_told_as_one_whatever_the_library_calls_it(upstream, behaviour):
    async def ask() -> None:
        async with upstream.send(engine.endpoint, PATH, BODY) as answer:
            await answer.whole()

    async with broken_engine(behaviour) as engine:
        with pytest.raises(UpstreamLost):
            await ask()
    with pytest.raises(UpstreamLost):
        await ask()  # nobody listens any more
