"""What a person meets who joins: each bad token has its own message and exit status; a home is minded."""

import asyncio
import os
from collections.abc import Generator
from pathlib import Path

import pytest

from mesh_llm.core.errors import INVITE_EXIT_CODES, InviteFault
from mesh_llm.mesh.admission import invites
from mesh_llm.mesh.admission.certificates import INVITE_ID_BYTES, NONCE_BYTES
from mesh_llm.mesh.admission.invites import Door
from mesh_llm.mesh.admission.ledger import founded
from mesh_llm.mesh.admission.signatures import NodeKey
from mesh_llm.mesh.home.ledger_file import read_ledger
from mesh_llm.mesh.transport import Addresses
from tests.interaction.background import BackgroundNode, in_background
from tests.interaction.nodes import BOUND_S, MODEL, Node, ended, get, started

pytestmark = pytest.mark.real

NO_RELAY = ("--mesh-relay", "none")
ON_FREE_PORTS = ("--port", "0", "--console", "0")
LONG_AGO = 1_700_000_000
NOBODY = Addresses(("127.0.0.1:9",))


@pytest.fixture(scope="module")
def door(store: Path, tmp_path_factory: pytest.TempPathFactory) -> Generator[BackgroundNode]:
    home = tmp_path_factory.mktemp("joining") / "door"
    with in_background(store, home, "--model", MODEL, *NO_RELAY) as node:
        node.wait_for_message("is ready")
        yield node


async def refused(store: Path, home: Path, *tokens: str) -> tuple[int, str]:
    """How a client ends that joins with these."""
    joins = [word for token in tokens for word in ("--join", token)]
    status, _, err = await ended(store, home, "--client", *joins, *NO_RELAY, *ON_FREE_PORTS)
    return status, err


def token_by(key: NodeKey, certificate: bytes, addresses: Addresses, expires: float) -> str:
    return invites.make(
        key,
        certificate,
        [Door(key.node, addresses)],
        os.urandom(INVITE_ID_BYTES),
        issued=LONG_AGO,
        expires=expires,
        once=False,
    )


def token_of_another_mesh() -> str:
    """Whose only door leads nowhere."""
    key = NodeKey(os.urandom(32))
    ledger = founded(key.node, os.urandom(NONCE_BYTES))
    return token_by(key, ledger.certificate, NOBODY, expires=4_000_000_000)


async def wait_until_member(client: Node) -> None:
    async with asyncio.timeout(BOUND_S):
        while True:
            if (await get(f"{await client.url()}/v1/models"))["data"]:
                return
            await asyncio.sleep(0.05)


@pytest.mark.parametrize(
    ("fault", "spoil", "words"),
    [
        (InviteFault.MALFORMED, lambda token: "nonsense", "no invite token"),
        (InviteFault.MALFORMED, lambda token: token[:40] + "*" + token[41:], "damaged"),
        (InviteFault.TRUNCATED, lambda token: token[:-30], "30 of its characters are missing"),
    ],
)
async def test_a_spoiled_token_says_how(
    store: Path, tmp_path: Path, door: BackgroundNode, fault: InviteFault, spoil, words: str
):
    status, err = await refused(store, tmp_path, spoil(door.invite))
    assert status == INVITE_EXIT_CODES[fault] and words in err


async def test_an_expired_token_says_when(store: Path, tmp_path: Path, door: BackgroundNode):
    key = NodeKey((door.home / "node.key").read_bytes())
    ledger = read_ledger(door.home)
    assert ledger is not None
    addresses = invites.read(door.invite).doors[0].addresses
    token = token_by(key, ledger.certificate, addresses, expires=LONG_AGO + 60)
    status, err = await refused(store, tmp_path, token)
    assert status == INVITE_EXIT_CODES[InviteFault.EXPIRED] and "2023-11-14" in err


async def test_a_member_does_not_join_another_mesh(store: Path, tmp_path: Path, door: BackgroundNode):
    async with started(store, tmp_path, "--client", "--join", door.invite, *NO_RELAY) as client:
        await wait_until_member(client)
    status, err = await refused(store, tmp_path, token_of_another_mesh())
    assert status == INVITE_EXIT_CODES[InviteFault.FOREIGN] and "--home" in err


async def test_a_door_that_nobody_answers_says_what_to_look_at(store: Path, tmp_path: Path):
    status, err = await refused(store, tmp_path, token_of_another_mesh())
    assert status == INVITE_EXIT_CODES[InviteFault.UNREACHABLE] and "firewall" in err


async def test_the_next_token_is_tried_when_one_leads_nowhere(
    store: Path, tmp_path: Path, door: BackgroundNode
):
    joins = ("--join", token_of_another_mesh(), "--join", door.invite)
    async with started(store, tmp_path, "--client", *joins, *NO_RELAY) as client:
        await wait_until_member(client)


async def test_a_home_holds_one_node_at_a_time(store: Path, door: BackgroundNode):
    status, err = await refused(store, door.home, door.invite)
    assert status == 2 and "Another node runs" in err
    status, _, err = await ended(store, door.home, "rotate-key")
    assert status == 2 and "Stop it first" in err


async def test_a_node_with_a_new_key_is_still_a_member(store: Path, tmp_path: Path, door: BackgroundNode):
    async with started(store, tmp_path, "--client", "--join", door.invite, *NO_RELAY) as client:
        await wait_until_member(client)
        assert await client.stop() == 0
    before = (tmp_path / "node.key").read_bytes()
    status, _, err = await ended(store, tmp_path, "rotate-key")
    assert status == 0, err
    assert (tmp_path / "node.key").read_bytes() != before
    async with started(store, tmp_path, "--client", *NO_RELAY) as client:
        await wait_until_member(client)


@pytest.mark.parametrize("name", ["node.key", "mesh.json"])
async def test_a_damaged_file_of_the_home_is_told_and_left_as_it_is(
    store: Path, tmp_path: Path, door: BackgroundNode, name: str
):
    async with started(store, tmp_path, "--client", "--join", door.invite, *NO_RELAY) as client:
        await wait_until_member(client)
        assert await client.stop() == 0
    (tmp_path / name).write_bytes(b"not what it was")
    status, err = await refused(store, tmp_path, door.invite)
    assert status == 2 and name in err and "damaged" in err
    assert (tmp_path / name).read_bytes() == b"not what it was"


async def test_without_internet_a_node_with_relays_starts_and_is_joined(store: Path, tmp_path: Path):
    async with started(store, tmp_path / "one", "--model", MODEL) as one:
        join = ("--join", await one.invite())
        async with started(store, tmp_path / "two", "--client", *join) as two:
            await wait_until_member(two)


async def test_a_node_that_is_still_looking_for_a_door_stops_at_once(store: Path, tmp_path: Path):
    token = token_of_another_mesh()
    async with started(store, tmp_path, "--client", "--join", token, *NO_RELAY) as client:
        async with asyncio.timeout(BOUND_S):
            while not (tmp_path / "node.key").exists():  # noqa: ASYNC110 (no log says so)
                await asyncio.sleep(0.05)
        assert await client.stop() == 0
