"""External servers on loopback ports: they list models, refuse, die and come back."""

import asyncio
import logging
import socket
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager, closing

import pytest
from aiohttp import web

from mesh_llm.core.serving import Condition, Endpoint, Ready, Restarting, Stopped
from mesh_llm.engine.external import ANSWER_BYTES_MAX, ExternalServer
from mesh_llm.runtime.bell import Bell
from mesh_llm.runtime.clock import Clock
from mesh_llm.runtime.listening import LOOPBACK, port_of, reserve
from mesh_llm.runtime.tasks import beside
from mesh_llm.runtime.web import serve


class Model:
    """A server's list of models, and what it was asked with."""

    def __init__(self, *names: str) -> None:
        self.names = list(names)
        self.answer: Callable[[], web.StreamResponse] = lambda: web.json_response(
            {"object": "list", "data": [{"id": name, "max_model_len": 4096} for name in self.names]}
        )
        self.keys: list[str | None] = []

    def application(self) -> web.Application:
        application = web.Application()
        application.router.add_get("/v1/models", self._list)
        return application

    async def _list(self, request: web.Request) -> web.StreamResponse:
        self.keys.append(request.headers.get("Authorization"))
        return self.answer()


@asynccontextmanager
async def answering(models: Model, port: int = 0) -> AsyncGenerator[str]:
    listener = reserve(LOOPBACK, port, "--port")
    listener.listen()
    async with beside(server=serve(models.application(), listener)):
        yield f"http://127.0.0.1:{port_of(listener)}"


class Watched:
    """An external server's backends, and a wait for what becomes of them."""

    def __init__(self, url: str, key: str = "") -> None:
        self._changed = Bell()
        self.endpoint = Endpoint(url, key, "openai")
        self.server = ExternalServer(
            self.endpoint, Clock(), self._changed.ring, look_every_s=0.01, look_again_s=0.01
        )

    @property
    def names(self) -> list[str]:
        return [backend.model.name for backend in self.server.backends]

    @property
    def condition(self) -> Condition:
        return self.server.backends[0].condition

    async def until(self, is_so: Callable[[], bool]) -> None:
        async with asyncio.timeout(30):
            while not is_so():
                await self._changed.wait_for_ring()

    async def until_failed(self, looks: int) -> None:
        """While it serves no model, each failed look rings."""
        async with asyncio.timeout(30):
            for _ in range(looks):
                await self._changed.wait_for_ring()


@asynccontextmanager
async def watching(url: str, key: str = "") -> AsyncGenerator[Watched]:
    watched = Watched(url, key)
    async with beside(run=watched.server.run()):
        yield watched


async def warned(caplog: pytest.LogCaptureFixture, part: str) -> str:
    async with asyncio.timeout(30):
        while True:
            for message in caplog.messages:
                if part in message:
                    return message
            await asyncio.sleep(0)


@pytest.fixture(autouse=True)
def heard(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    caplog.set_level(logging.INFO)
    return caplog


async def test_each_model_of_a_server_is_a_ready_backend():
    async with answering(Model("a/chat", "b")) as url, watching(url) as watched:
        await watched.until(lambda: watched.names == ["a/chat", "b"])
        assert watched.condition == Ready(Endpoint(url, "", "openai"))
        assert watched.server.backends[0].model.context_length == 4096


async def test_models_come_and_go_and_those_that_stay_are_the_same_backends():
    models = Model("a", "b")
    async with answering(models) as url, watching(url) as watched:
        await watched.until(lambda: watched.names == ["a", "b"])
        leaving, staying = watched.server.backends
        models.names[:] = ["b", "c"]
        await watched.until(lambda: watched.names == ["b", "c"])
        assert watched.server.backends[0] is staying
        assert leaving.condition == Stopped()


async def test_a_server_that_dies_is_restarting_with_its_reason_and_comes_back():
    models = Model("a")
    async with answering(models) as url:
        watched = Watched(url)
        async with beside(run=watched.server.run()):
            await watched.until(lambda: watched.names == ["a"])
            backend = watched.server.backends[0]
            models.answer = lambda: web.Response(status=503)
            await watched.until(lambda: isinstance(watched.condition, Restarting))
            assert isinstance(watched.condition, Restarting) and "HTTP 503" in watched.condition.reason
            models.answer = Model("a").answer
            await watched.until(lambda: isinstance(watched.condition, Ready))
            assert watched.server.backends == (backend,)


async def test_a_server_that_is_not_there_yet_is_a_warning_and_served_when_it_comes(
    caplog: pytest.LogCaptureFixture,
):
    with closing(socket.create_server((LOOPBACK, 0))) as placeholder:
        port = port_of(placeholder)
    async with watching(f"http://127.0.0.1:{port}") as watched:
        assert "asking again every" in await warned(caplog, "cannot be reached")
        assert watched.server.backends == ()
        await watched.until_failed(3)
        assert len([message for message in caplog.messages if "cannot be reached" in message]) == 1
        async with answering(Model("late"), port):
            await watched.until(lambda: watched.names == ["late"])
        await watched.until(lambda: isinstance(watched.condition, Restarting))


async def test_a_broken_answer_is_explained_by_looking_again():
    models = Model("a")
    async with answering(models) as url:
        changed = Bell()
        server = ExternalServer(Endpoint(url, ""), Clock(), changed.ring)  # looks again after 10 s by itself
        async with beside(run=server.run()), asyncio.timeout(30):
            while not server.backends:
                await changed.wait_for_ring()
            assert "without a word" in await server.backends[0].explain_failure()
            models.answer = lambda: web.Response(status=500)
            assert "HTTP 500" in await server.backends[0].explain_failure()


async def test_the_key_is_sent_and_told_to_nobody(caplog: pytest.LogCaptureFixture):
    models = Model("a")
    async with answering(models) as url, watching(url, "s3cret") as watched:
        await watched.until(lambda: watched.names == ["a"])
        models.answer = lambda: web.Response(status=401)
        await watched.until(lambda: isinstance(watched.condition, Restarting))
        assert isinstance(watched.condition, Restarting)
        assert "MESH_LLM_ENDPOINT_KEY" in watched.condition.reason
        assert "s3cret" not in watched.condition.reason + caplog.text
        assert "s3cret" not in repr(watched.server) + repr(watched.server.backends)
    assert set(models.keys) == {"Bearer s3cret"}


async def test_without_a_key_no_header_is_sent():
    models = Model("a")
    async with answering(models) as url, watching(url) as watched:
        await watched.until(lambda: watched.names == ["a"])
    assert set(models.keys) == {None}


def redirecting() -> web.StreamResponse:
    return web.Response(status=302, headers={"Location": "http://127.0.0.1:1/elsewhere"})


def endless() -> web.StreamResponse:
    return web.Response(body=b"[" * (ANSWER_BYTES_MAX + 1), content_type="application/json")


def packed() -> web.StreamResponse:
    """Compressed although nobody asked: what it unpacks to is nobody's to find out."""
    response = web.json_response({"data": [{"id": "a"}]})
    response.enable_compression(web.ContentCoding.gzip)
    return response


@pytest.mark.parametrize(
    ("answer", "word"),
    [
        (lambda: web.Response(status=404), "no /v1/models"),
        (lambda: web.Response(status=418), "HTTP 418"),
        (redirecting, "redirects"),
        (lambda: web.Response(text="<html>"), "no JSON"),
        (lambda: web.Response(text="[" * 200_000), "no JSON"),
        (lambda: web.json_response([]), "no JSON object"),
        (lambda: web.json_response({"data": [{"id": "m", "owned_by": "mesh-llm"}]}), "--join"),
        (endless, "more than 4194304 bytes"),
        (packed, "no JSON"),
    ],
)
async def test_an_answer_that_is_no_list_is_told_with_what_helps(
    answer: Callable[[], web.StreamResponse], word: str, caplog: pytest.LogCaptureFixture
):
    models = Model()
    models.answer = answer
    async with answering(models) as url, watching(url):
        await warned(caplog, word)
