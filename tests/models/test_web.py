"""One exchange with a server: proxies, redirects, and failures told apart."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from mesh_llm.core.errors import DownloadFailed
from mesh_llm.models.patience import Broken
from mesh_llm.models.places import ModelPlaces
from mesh_llm.models.web import Web
from tests.models.conftest import places_at
from tests.models.hub_server import HubServer
from tests.models.raw_server import raw_server

NOWHERE = "http://127.0.0.1:9"
"""The discard port: nobody listens there."""


@pytest.fixture
async def endpoint() -> AsyncIterator[str]:
    """A server that says in JSON what it was asked for."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        target = (await reader.readuntil(b"\r\n\r\n")).split(b" ")[1]
        body = b'"%s"' % target
        writer.write(
            b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body)
        )

    async with raw_server(answer) as port:
        yield f"http://127.0.0.1:{port}"


async def ask(places: ModelPlaces, url: str) -> object:
    async with asyncio.timeout(20), Web(places) as web, web.exchange("GET", url, {}) as answer:
        return await answer.json(1000)


@pytest.mark.parametrize("scheme", ["http", "all"])
async def test_a_proxy_is_asked_for_what_lies_behind_it(tmp_path: Path, endpoint: str, scheme: str) -> None:
    places = replace(places_at(tmp_path, NOWHERE), proxies={scheme: endpoint})
    assert await ask(places, f"{NOWHERE}/x") == f"{NOWHERE}/x"


@pytest.mark.parametrize(
    ("exceptions", "goes_direct"),
    [
        ("127.0.0.1", True),
        ("*", True),
        ("lan, 127.0.0.1", True),
        (".0.0.1", True),
        ("", False),
        ("0.0.1x", False),
    ],
)
async def test_hosts_that_need_no_proxy_are_asked_directly(
    tmp_path: Path, endpoint: str, exceptions: str, goes_direct: bool
) -> None:
    proxies: Mapping[str, str] = {"http": NOWHERE, "no": exceptions}
    places = replace(places_at(tmp_path, endpoint), proxies=proxies)
    if goes_direct:
        assert await ask(places, f"{endpoint}/x") == "/x"
    else:
        with pytest.raises(Broken):
            await ask(places, f"{endpoint}/x")


async def test_a_repository_that_was_renamed_is_followed_with_the_token(
    hub: HubServer, tmp_path: Path
) -> None:
    hub.files = {"new/name/m.gguf": b""}
    hub.renamed = {"old/name": "new/name"}
    listing = await ask(
        places_at(tmp_path, hub.url, token="hf_x"), f"{hub.url}/api/models/old/name/tree/main"
    )
    assert isinstance(listing, list) and len(listing) == 2
    assert [each.headers["authorization"] for each in hub.seen] == ["Bearer hf_x"] * 2


@pytest.mark.parametrize("body", [b"<html>", b"", b"\xff"])
async def test_an_answer_that_is_no_json_is_no_hub(tmp_path: Path, body: bytes) -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(
            b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body)
        )

    async with raw_server(answer) as port:
        url = f"http://127.0.0.1:{port}"
        with pytest.raises(DownloadFailed, match="no model hub"):
            await ask(places_at(tmp_path, url), url)


async def test_an_answer_without_end_is_not_kept(tmp_path: Path) -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n" + b" " * 100_000)
        await reader.read()

    async with raw_server(answer) as port:
        url = f"http://127.0.0.1:{port}"
        with pytest.raises(DownloadFailed, match="more than 1000 bytes"):
            await ask(places_at(tmp_path, url), url)


@pytest.mark.parametrize(
    "garbage", [b"", b"hello\r\n\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nab"]
)
async def test_what_is_no_http_may_be_better_the_next_time(tmp_path: Path, garbage: bytes) -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(garbage)

    async with raw_server(answer) as port:
        url = f"http://127.0.0.1:{port}"
        with pytest.raises(Broken):
            await ask(places_at(tmp_path, url), url)


async def test_a_connection_that_cannot_be_trusted_is_final_and_says_what_to_check(tmp_path: Path) -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 400 Plain HTTP, not TLS\r\n\r\n")
        await reader.read(1)

    async with raw_server(answer) as port:
        url = f"https://127.0.0.1:{port}"
        with pytest.raises(DownloadFailed, match="SSL_CERT_FILE"):
            await ask(places_at(tmp_path, url), url)
