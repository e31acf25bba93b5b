"""How a node comes to be a member: its key, its ledger, the network, and a way into the mesh.

Founds a mesh where there is none, comes back where the home remembers one, asks at the doors of an invite.
"""

from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

from mesh_llm import __version__
from mesh_llm.mesh.admission.certificates import NONCE_BYTES
from mesh_llm.mesh.admission.joining import Found, Join, Rejoin, Start, plan_start
from mesh_llm.mesh.admission.ledger import Ledger, founded
from mesh_llm.mesh.admission.signatures import NodeKey
from mesh_llm.mesh.description import Description
from mesh_llm.mesh.entering import enter
from mesh_llm.mesh.home.identity import load_or_create_key
from mesh_llm.mesh.home.ledger_file import load_ledger, save_ledger
from mesh_llm.mesh.home.rotation import settle_rotation
from mesh_llm.mesh.iroh_transport import IrohTransport
from mesh_llm.mesh.service import Mesh
from mesh_llm.mesh.transport import Kind, Stream, Transport
from mesh_llm.node.settings import Doors, NodeSettings
from mesh_llm.runtime.bell import Bell


@asynccontextmanager
async def belonging(
    settings: NodeSettings,
    doors: Doors,
    describe: Callable[[], Description],
    answers: Mapping[Kind, Callable[[Stream], Awaitable[None]]],
    busy: Callable[[], int],
    changes: Bell,
) -> AsyncGenerator[Mesh]:
    """A member, not running yet. Raises InviteRefused, AddressInUse, ..."""
    now = doors.clock.epoch()
    key, ledger, keep = _remembered(settings, doors)
    start = plan_start(ledger, settings.join, now)
    async with IrohTransport.open(
        key.seed,
        bind_port=settings.bind_port,
        last_port=ledger.port if ledger else 0,
        relays=settings.relays,
        clock=doors.clock,
    ) as transport:
        ledger = replace(await _membership(start, ledger, key, transport, doors), port=transport.port)
        keep(ledger)
        yield Mesh(
            key,
            ledger,
            transport,
            clock=doors.clock,
            chance=doors.chance,
            keep=keep,
            describe=describe,
            answers=answers,
            busy=busy,
            changes=changes,
        )


def _remembered(
    settings: NodeSettings, doors: Doors
) -> tuple[NodeKey, Ledger | None, Callable[[Ledger], None]]:
    """The key, the ledger of an earlier life, and how to keep it."""
    if settings.ephemeral:
        return NodeKey.draw(doors.chance), None, _forget
    home: Path = settings.home
    settle_rotation(home)
    key = load_or_create_key(home, doors.chance)

    def keep(ledger: Ledger) -> None:
        save_ledger(home, ledger)

    return key, load_ledger(home, key.node), keep


def _forget(_: Ledger) -> None:
    """An ephemeral node leaves no trace."""


async def _membership(
    start: Start, ledger: Ledger | None, key: NodeKey, transport: Transport, doors: Doors
) -> Ledger:
    match start:
        case Found():
            return founded(key.node, doors.chance.randbytes(NONCE_BYTES))
        case Rejoin():
            assert ledger is not None
            return ledger
        case Join(invites):
            return await enter(invites, transport, __version__, doors.clock.epoch())
