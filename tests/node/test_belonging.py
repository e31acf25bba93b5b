"""Over the real network, in homes on disk."""

import asyncio
import gc
import socket
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

from mesh_llm.mesh.description import Description
from mesh_llm.mesh.service import Mesh
from mesh_llm.node.belonging import belonging
from mesh_llm.runtime.bell import Bell
from mesh_llm.runtime.tasks import beside
from tests.node.settings import doors, settings_in


@asynccontextmanager
async def member(home: Path, **said: Any) -> AsyncGenerator[tuple[Mesh, Bell]]:
    changes = Bell()

    def describe() -> Description:
        return Description(home.name, "server", "0")

    async with (
        belonging(settings_in(home, **said), doors(), describe, {}, lambda: 0, changes) as mesh,
        beside(mesh=mesh.run()),
    ):
        yield mesh, changes
        await mesh.leave()


def ports_of(mesh: Mesh) -> set[int]:
    return {int(address.rpartition(":")[2]) for address in mesh.addresses.direct}


async def company(home: Path, *, founding: bool) -> tuple[set[int], set[int]]:
    """Two nodes that see each other; their ports."""
    async with member(home / "one") as (one, changes):
        join = (one.invite(60),) if founding else ()
        async with member(home / "two", join=join) as (two, _):
            while not one.neighbours():
                await changes.wait_for_ring()
            return ports_of(one), ports_of(two)


async def life(home: Path, **said: Any) -> set[int]:
    async with member(home, **said) as (mesh, _):
        return ports_of(mesh)


async def ended(*ports: int) -> None:
    """iroh closes its sockets in a thread of its own, some time after its objects have been freed."""
    gc.collect()
    while not all(map(is_free, ports)):  # noqa: ASYNC110
        await asyncio.sleep(0.05)


def is_free(port: int) -> bool:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe, suppress(OSError):
        probe.bind(("0.0.0.0", port))
        return True
    return False


async def test_a_mesh_whose_nodes_have_all_stopped_finds_itself_again(tmp_path: Path):
    async with asyncio.timeout(60):
        one, two = await company(tmp_path, founding=True)
        await ended(*one, *two)
        assert await company(tmp_path, founding=False) == (one, two)


async def test_where_the_last_port_is_taken_any_other_will_do(tmp_path: Path):
    async with asyncio.timeout(30):
        (last,) = await life(tmp_path)
        await ended(last)
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as taken:
            taken.bind(("0.0.0.0", last))
            others = await life(tmp_path)
            assert others and last not in others


async def test_a_port_that_was_asked_for_need_not_be_asked_for_again(tmp_path: Path):
    async with asyncio.timeout(30):
        (asked,) = await life(tmp_path / "somebody")
        (drawn,) = await life(tmp_path / "home")
        await ended(asked, drawn)
        assert await life(tmp_path / "home", bind_port=asked) == {asked}
        await ended(asked)
        assert await life(tmp_path / "home") == {asked}
