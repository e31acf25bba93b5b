"""Commands that ask the running node: a real console on a port, found by the file in the home."""

import asyncio
import json
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from random import Random

import pytest
from aiohttp import web

from mesh_llm import __version__
from mesh_llm.cli.main import main
from mesh_llm.console.app import Console
from mesh_llm.console.control import Control
from mesh_llm.console.snapshot import MeshStatus, Snapshot
from mesh_llm.core.errors import InviteFault, InviteRefused, ModelNotFound, RequestRefused
from mesh_llm.core.ids import MeshId, NodeId
from mesh_llm.core.machine import Machine
from mesh_llm.mesh.home.identity import KEY_FILE, load_or_create_key
from mesh_llm.mesh.home.running import RUNNING_FILE, Running, announce, only_node_of
from mesh_llm.runtime.bell import Bell
from mesh_llm.runtime.listening import LOOPBACK, port_of, reserve
from mesh_llm.runtime.tasks import beside
from mesh_llm.runtime.web import serve

MESH = MeshStatus(NodeId("a" * 64), "desk", MeshId("d" * 32), is_client=False, token="mesh1secret", peers=())
SNAPSHOT = Snapshot(__version__, 9337, Machine(2, 8, 4, ()), 6, (), (), 0, 0, MESH)


class Verbs:
    """A node with one invite, one peer and one model."""

    def __init__(self) -> None:
        self.asked: list[object] = []

    async def invite(self, *, once: bool, ttl_s: int | None) -> str:
        self.asked.append((once, ttl_s))
        return "mesh1new"

    async def revoke(self, text: str) -> None:
        if text != "mesh1new":
            raise InviteRefused(InviteFault.MALFORMED, "This is no invite token.")
        self.asked.append(text)

    async def kick(self, text: str) -> str:
        if text != "studio":
            raise RequestRefused(f"No node fits `{text}`.")
        return "stu\x1bdio bbbbbbbbbb"

    async def drop(self, model: str) -> str:
        if model != "known":
            raise ModelNotFound(f"There is no model `{model}` here.")
        return model


@asynccontextmanager
async def running(
    home: Path, verbs: Verbs | None = None, application: web.Application | None = None, key: str = "k3y"
) -> AsyncGenerator[None]:
    """What a node that runs in `home` shows to commands."""
    control = Control(verbs or Verbs(), "k3y")
    console = Console(lambda: SNAPSHOT, Bell(), control)
    listener = reserve(LOOPBACK, 0, "--console")
    listener.listen()
    with only_node_of(home):
        announce(home, Running(4711, 9337, port_of(listener), key))
        async with beside(console=serve(application or console.application(), listener)):
            yield


Said = Callable[[], tuple[str, str]]


@pytest.fixture
def said(capsys: pytest.CaptureFixture[str]) -> Said:
    def read() -> tuple[str, str]:
        captured = capsys.readouterr()
        return captured.out, captured.err

    return read


async def command(home: Path, *argv: str) -> int:
    """As typed, in a thread: commands have an event loop of their own."""
    async with asyncio.timeout(60):
        return await asyncio.to_thread(main, [*argv, "--home", str(home)])


async def test_an_invite_is_printed_alone_so_that_scripts_can_take_it(tmp_path: Path, said: Said):
    verbs = Verbs()
    async with running(tmp_path, verbs):
        assert await command(tmp_path, "invite") == 0
        assert said() == ("mesh1new\n", "")
        assert await command(tmp_path, "invite", "--once", "--ttl", "12h", "--json") == 0
        assert json.loads(said()[0]) == {"token": "mesh1new"}
    assert verbs.asked == [(False, None), (True, 43_200)]


async def test_an_invite_is_revoked_by_its_token(tmp_path: Path, said: Said):
    verbs = Verbs()
    async with running(tmp_path, verbs):
        assert await command(tmp_path, "invite", "revoke", "mesh1new") == 0
    assert "revoked" in said()[0] and verbs.asked == ["mesh1new"]


async def test_the_refusal_of_the_node_is_the_command_s_with_its_status(tmp_path: Path, said: Said):
    async with running(tmp_path):
        assert await command(tmp_path, "invite", "revoke", "nonsense") == 10
        assert "no invite token" in said()[1]
        assert await command(tmp_path, "kick", "nobody") == 2
        assert "No node fits `nobody`" in said()[1]
        assert await command(tmp_path, "drop", "other") == 3
        assert "no model `other`" in said()[1]
        assert await command(tmp_path, "drop", "other", "--log-format", "json") == 3
        assert json.loads(said()[1])["message"] == "There is no model `other` here."


async def test_kick_and_drop_tell_whom_and_what_they_met(tmp_path: Path, said: Said):
    async with running(tmp_path):
        assert await command(tmp_path, "kick", "studio") == 0
        assert said()[0].startswith("kicked stu?dio bbbbbbbbbb:")
        assert await command(tmp_path, "drop", "known") == 0
        assert said()[0] == "dropped known\n"


async def test_status_is_a_table_or_json_without_an_invite(tmp_path: Path, said: Said):
    async with running(tmp_path):
        assert await command(tmp_path, "status") == 0
        out = said()[0]
        assert "mesh dddddddddd, 1 node" in out and "desk (this node)" in out
        assert await command(tmp_path, "status", "--json") == 0
        status = json.loads(said()[0])
        assert status["node_name"] == "desk" and status["token"] is None


@pytest.mark.parametrize(
    "argv", [["invite"], ["invite", "revoke", "x"], ["kick", "x"], ["drop", "x"], ["status"]]
)
async def test_without_a_running_node_the_cure_is_told(tmp_path: Path, argv: list[str], said: Said):
    assert await command(tmp_path / "home", *argv) == 18
    err = said()[1]
    assert "No node runs in" in err and "--home" in err and "mesh-llm --model" in err
    assert not (tmp_path / "home").exists()


async def test_what_a_killed_node_left_behind_is_no_node(tmp_path: Path, said: Said):
    announce(tmp_path, Running(4711, 9337, 1, "k3y"))
    assert await command(tmp_path, "status") == 18
    assert "No node runs in" in said()[1]


async def test_a_node_that_does_not_answer_is_told_with_its_process(tmp_path: Path, said: Said):
    with only_node_of(tmp_path):
        announce(tmp_path, Running(4711, 9337, 1, "k3y"))
        assert await command(tmp_path, "status") == 18
    err = said()[1]
    assert "process 4711" in err and "port 1 " in err and "Traceback" not in err


async def test_a_wrong_key_is_told(tmp_path: Path, said: Said):
    async with running(tmp_path, key="another"):
        assert await command(tmp_path, "invite") == 2
    assert "control key" in said()[1]


@pytest.mark.parametrize(
    "answer",
    [
        lambda: web.Response(text="<html>"),
        lambda: web.json_response([]),
        lambda: web.json_response({}, status=500),
        lambda: web.Response(status=302, headers={"Location": "http://127.0.0.1:1/"}),
    ],
)
async def test_somebody_else_on_the_port_is_no_node_of_ours(
    tmp_path: Path, answer: Callable[[], web.Response], said: Said
):
    async def handle(_: web.Request) -> web.Response:
        return answer()

    stranger = web.Application()
    stranger.router.add_route("*", "/{path:.*}", handle)
    async with running(tmp_path, application=stranger):
        assert await command(tmp_path, "status") == 18
    assert "does not answer" in said()[1]


async def test_revoke_takes_no_flags_of_invite(tmp_path: Path, said: Said):
    assert await command(tmp_path, "invite", "--once", "revoke", "x") == 2
    assert "--once" in said()[1]


async def test_a_key_is_rotated_only_while_no_node_runs(tmp_path: Path, said: Said):
    assert await command(tmp_path, "rotate-key") == 2
    assert "no key yet" in said()[1]
    async with running(tmp_path):
        assert await command(tmp_path, "rotate-key") == 2
        assert "Stop it first" in said()[1]
        assert (tmp_path / RUNNING_FILE).exists()


async def test_a_rotated_key_is_another_node(tmp_path: Path, said: Said):
    old = load_or_create_key(tmp_path, Random(7))
    before = (tmp_path / KEY_FILE).read_bytes()
    assert await command(tmp_path, "rotate-key") == 0
    assert old.node[:10] in said()[0] and (tmp_path / KEY_FILE).read_bytes() != before
