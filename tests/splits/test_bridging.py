"""Bytes between a child's socket and the ring, over real streams: all, both ways, until one end breaks."""

import asyncio
import socket
import tempfile
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from random import Random

import psutil
import pytest

from mesh_llm.mesh.transport import Kind, Stream, Unreachable
from mesh_llm.splits.bridging import bridge, child_socket
from tests.splits.village import Answer, Village, village

BEFORE, HERE, AFTER = 1, 2, 3


@dataclass
class Bridge:
    """A bridge at the second villager, and all that it connects."""

    incoming: Stream
    """What the stage before sends on."""
    outgoing: Stream
    """What the stage after hears."""
    child: socket.socket
    """The child's own end."""
    over: "asyncio.Task[str]"

    async def says(self, data: bytes) -> None:
        await asyncio.get_running_loop().sock_sendall(self.child, data)

    async def hears(self, size: int) -> bytes:
        got = b""
        while len(got) < size:
            piece = await asyncio.get_running_loop().sock_recv(self.child, size - len(got))
            if not piece:
                break
            got += piece
        return got


async def collected(stream: Stream, size: int) -> bytes:
    parts: list[bytes] = []
    while size > 0 and (piece := await stream.receive()) is not None:
        parts.append(piece)
        size -= len(piece)
    return b"".join(parts)


@asynccontextmanager
async def a_bridge(place: Village) -> AsyncGenerator[Bridge]:
    with tempfile.TemporaryDirectory() as folder, socket.socket(socket.AF_UNIX) as listener:
        path = str(Path(folder) / "child")
        listener.bind(path)
        listener.listen()
        listener.setblocking(False)
        arrived: dict[int, asyncio.Future[Stream]] = {
            number: asyncio.get_running_loop().create_future() for number in (HERE, AFTER)
        }
        end = asyncio.Event()

        def taking(number: int) -> Answer:
            async def take(stream: Stream) -> None:
                await stream.receive()
                arrived[number].set_result(stream)
                await end.wait()

            return take

        for number in arrived:
            place[number].answers[Kind.RING] = taking(number)
        async with (
            place[BEFORE].stream(place[HERE].id, Kind.RING) as incoming,
            place[HERE].stream(place[AFTER].id, Kind.RING) as outgoing,
        ):
            for stream in (incoming, outgoing):
                await stream.send(b"begin")
            there, after = await arrived[HERE], await arrived[AFTER]

            async def run() -> str:
                async with child_socket(path) as mine:
                    return await bridge(mine, there, outgoing)

            async with asyncio.TaskGroup() as tasks:
                over = tasks.create_task(run())
                child, _ = await asyncio.get_running_loop().sock_accept(listener)
                with child:
                    yield Bridge(incoming, after, child, over)
                end.set()
                over.cancel()


@pytest.mark.parametrize("iroh", [False, True], ids=["memory", "iroh"])
async def test_bytes_pass_in_order_small_and_large_both_ways_at_once(iroh: bool):
    chance = Random(1)
    sizes = [1, 2, 4096, 300_000, 5_000_000, 7, 1_048_576, 1_048_577]
    data = [chance.randbytes(size) for size in sizes]
    whole = b"".join(data)
    async with village(3, iroh=iroh) as place, a_bridge(place) as ring, asyncio.TaskGroup() as tasks:

        async def send() -> None:
            for piece in data:
                for start in range(0, len(piece), 1 << 20):
                    await ring.incoming.send(piece[start : start + (1 << 20)])

        async def say() -> None:
            for piece in data:
                await ring.says(piece)

        tasks.create_task(send())
        tasks.create_task(say())
        heard = tasks.create_task(ring.hears(len(whole)))
        passed = tasks.create_task(collected(ring.outgoing, len(whole)))
        assert await heard == whole
        assert await passed == whole


async def megabytes_until_full(push: Callable[[bytes], Awaitable[None]]) -> int:
    """How many are taken before one has to wait for a second."""
    taken = 0
    with suppress(TimeoutError):
        while taken < 100:
            await asyncio.wait_for(push(bytes(1 << 20)), 1.0)
            taken += 1
    return taken


async def test_a_child_that_reads_nothing_holds_up_the_stage_before():
    async with village(3) as place, a_bridge(place) as ring:
        assert await megabytes_until_full(ring.incoming.send) < 20


async def test_a_stage_after_that_reads_nothing_holds_up_the_child():
    async with village(3) as place, a_bridge(place) as ring:
        assert await megabytes_until_full(ring.says) < 20


async def test_the_end_of_the_stage_before_is_passed_on_once_the_child_has_spoken():
    async with village(3) as place, a_bridge(place) as ring:
        await ring.incoming.finish()
        assert await ring.hears(1) == b""
        await ring.says(b"why I end")
        ring.child.shutdown(socket.SHUT_WR)
        assert await ring.outgoing.receive() == b"why I end"
        assert await ring.outgoing.receive() is None
        assert "before" in await ring.over and "ended the ring" in await ring.over


async def test_a_child_that_breaks_off_while_it_is_written_to_is_heard_to_its_last_byte():
    last = Random(2).randbytes(100_000)
    async with village(3) as place, a_bridge(place) as ring, asyncio.TaskGroup() as tasks:

        async def push() -> None:
            with suppress(Unreachable):
                while True:
                    await ring.incoming.send(bytes(100_000))

        pushing = tasks.create_task(push())
        await ring.says(last)
        ring.child.close()
        assert await collected(ring.outgoing, len(last)) == last
        assert "process" in await ring.over
        pushing.cancel()


@pytest.mark.parametrize("who", [BEFORE, AFTER])
async def test_a_neighbour_that_is_gone_ends_the_bridge_with_a_reason(who: int):
    async with village(3) as place, a_bridge(place) as ring:
        await place[who].leave()
        assert f"the stage {'before' if who == BEFORE else 'after'} is gone" in await ring.over
        assert await ring.hears(1) == b""


async def test_a_child_that_ignores_the_end_of_its_input_is_not_waited_for_long():
    async with village(3, seconds=20) as place, a_bridge(place) as ring:
        await ring.incoming.finish()
        assert "ended the ring" in await ring.over


async def test_a_stage_after_that_speaks_backwards_ends_the_bridge():
    async with village(3) as place, a_bridge(place) as ring:
        await ring.outgoing.send(b"hello")
        assert "against the ring's direction" in await ring.over


async def test_bridges_leave_no_socket_and_no_task_behind():
    async with village(3) as place:
        async with a_bridge(place) as ring:
            await ring.says(b"x")
            await ring.outgoing.receive()
        files, tasks = psutil.Process().num_fds(), len(asyncio.all_tasks())
        for _ in range(20):
            async with a_bridge(place) as ring:
                await ring.says(b"x")
                assert await ring.outgoing.receive() == b"x"
        async with asyncio.timeout(10):
            while len(asyncio.all_tasks()) > tasks:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        assert psutil.Process().num_fds() <= files
