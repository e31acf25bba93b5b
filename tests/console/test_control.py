"""The verbs over HTTP, with the control key, with a wrong one, with none."""

import json
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from mesh_llm.console.control import BODY_BYTES_MAX, Control
from mesh_llm.core.errors import ModelNotFound, RequestRefused
from mesh_llm.runtime.listening import LOOPBACK, port_of, reserve
from mesh_llm.runtime.tasks import beside
from mesh_llm.runtime.web import only_from_this_machine, serve

KEY = {"Authorization": "Bearer c0ntrol"}


class Verbs:
    """A node that writes down what it is asked for."""

    def __init__(self) -> None:
        self.asked: list[object] = []

    async def invite(self, *, once: bool, ttl_s: int | None) -> str:
        self.asked.append(("invite", once, ttl_s))
        return "mesh1token"

    async def revoke(self, text: str) -> None:
        self.asked.append(("revoke", text))

    async def kick(self, text: str) -> str:
        if text == "desk":
            raise RequestRefused("desk is this node itself: stop it instead.")
        self.asked.append(("kick", text))
        return "studio (bbbbbbbbbb)"

    async def drop(self, model: str) -> str:
        if model != "known":
            raise ModelNotFound(f"There is no model `{model}` here.")
        self.asked.append(("drop", model))
        return model


@asynccontextmanager
async def controlled(verbs: Verbs) -> AsyncGenerator[aiohttp.ClientSession]:
    application = web.Application(middlewares=[only_from_this_machine])
    Control(verbs, "c0ntrol").add_routes(application.router)
    listener = reserve(LOOPBACK, 0, "--console")
    listener.listen()
    base = f"http://127.0.0.1:{port_of(listener)}"
    async with beside(server=serve(application, listener)), aiohttp.ClientSession(base) as client:
        yield client


@pytest.mark.parametrize(
    ("path", "body", "answer", "asked"),
    [
        ("/api/invite", {}, {"token": "mesh1token"}, ("invite", False, None)),
        (
            "/api/invite",
            {"once": True, "ttl_s": 60, "later": "ignored"},
            {"token": "mesh1token"},
            ("invite", True, 60),
        ),
        ("/api/invite/revoke", {"invite": " mesh1x "}, {"revoked": "mesh1x"}, ("revoke", "mesh1x")),
        ("/api/kick", {"node": "bbbb"}, {"kicked": "studio (bbbbbbbbbb)"}, ("kick", "bbbb")),
        ("/api/drop", {"model": "known"}, {"dropped": "known"}, ("drop", "known")),
    ],
)
async def test_each_verb_is_carried_out(path: str, body: Any, answer: Any, asked: Any):
    verbs = Verbs()
    async with controlled(verbs) as client, client.post(path, json=body, headers=KEY) as response:
        assert (response.status, await response.json()) == (200, answer)
    assert verbs.asked == [asked]


async def test_an_empty_body_is_an_invite_as_usual():
    async with controlled(Verbs()) as client, client.post("/api/invite", headers=KEY) as response:
        assert await response.json() == {"token": "mesh1token"}


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Authorization": "Bearer wrong"},
        {"Authorization": "Bearer "},
        {"Authorization": "Bearer c0ntrolx"},
        {"Authorization": "Basic c0ntrol"},
        {"Authorization": "c0ntrol"},
        {"Authorization": "Bearer c0ntrol", "Origin": "https://evil.example"},
        {"Authorization": "Bearer c0ntrol", "Host": "evil.example"},
    ],
)
@pytest.mark.parametrize("path", ["/api/invite", "/api/invite/revoke", "/api/kick", "/api/drop"])
async def test_without_the_key_or_from_elsewhere_nothing_happens(path: str, headers: dict[str, str]):
    verbs = Verbs()
    body = {"invite": "x", "node": "x", "model": "known"}
    async with controlled(verbs) as client, client.post(path, json=body, headers=headers) as response:
        assert response.status in (401, 403)
        if response.status == 401:
            error = (await response.json())["error"]
            assert error["exit_code"] == 2 and "control_key" in error["message"]
    assert verbs.asked == []


async def test_strange_bytes_in_the_header_are_a_wrong_key():
    async with controlled(Verbs()) as client:
        headers = {"Authorization": "Bearer caf\u00e9"}
        async with client.post("/api/invite", headers=headers) as response:
            assert response.status == 401


@pytest.mark.parametrize(
    ("path", "body", "word"),
    [
        ("/api/invite", {"once": 1}, "once"),
        ("/api/invite", {"ttl_s": 0}, "ttl_s"),
        ("/api/invite", {"ttl_s": True}, "ttl_s"),
        ("/api/invite", {"ttl_s": 60.5}, "ttl_s"),
        ("/api/invite", {"ttl_s": "1d"}, "ttl_s"),
        ("/api/invite", {"ttl_s": 1e300}, "ttl_s"),
        ("/api/invite/revoke", {}, "invite"),
        ("/api/kick", {"node": " "}, "node"),
        ("/api/kick", {"node": 7}, "node"),
        ("/api/drop", {"name": "known"}, "model"),
    ],
)
async def test_a_wrong_field_is_named(path: str, body: Any, word: str):
    verbs = Verbs()
    async with controlled(verbs) as client, client.post(path, json=body, headers=KEY) as response:
        error = (await response.json())["error"]
        assert response.status == 400 and error["exit_code"] == 2 and word in error["message"]
    assert verbs.asked == []


@pytest.mark.parametrize("body", [b"[]", b"x", b"[" * 50_000, b"\xff", b"3"])
async def test_a_body_that_is_no_object_is_refused(body: bytes):
    async with controlled(Verbs()) as client, client.post("/api/drop", data=body, headers=KEY) as response:
        assert response.status == 400
        assert "JSON object" in (await response.json())["error"]["message"]


async def test_a_body_is_read_no_further_than_its_bound():
    body = json.dumps({"model": "x" * BODY_BYTES_MAX}).encode()
    async with controlled(Verbs()) as client, client.post("/api/drop", data=body, headers=KEY) as response:
        assert response.status == 413


async def test_the_node_s_refusal_comes_with_its_kind_and_the_command_s_status():
    async with controlled(Verbs()) as client:
        async with client.post("/api/drop", json={"model": "nope"}, headers=KEY) as response:
            assert response.status == 404
            assert (await response.json())["error"] == {
                "message": "There is no model `nope` here.",
                "kind": "invalid_request_error",
                "exit_code": 3,
            }
        async with client.post("/api/kick", json={"node": "desk"}, headers=KEY) as response:
            assert (await response.json())["error"]["exit_code"] == 2


async def test_verbs_are_not_for_looking():
    async with controlled(Verbs()) as client, client.get("/api/invite", headers=KEY) as response:
        assert response.status == 405
