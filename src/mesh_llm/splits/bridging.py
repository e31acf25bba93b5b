"""Bytes of the ring between a stage's process on this machine and the stages before and after it.

What comes from the stage before goes to the child, what the child says goes to the stage after, unread:
frames are the children's business. Each token waits for every hop, so whatever is there is passed on at
once. The child's socket is used bare: a transport of asyncio throws away what the child has said when a
write to it fails, and that is how a child says why it gives up.
"""

import asyncio
import socket
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress

from mesh_llm.core.ids import short
from mesh_llm.mesh.transport import FRAME_BYTES_MAX, PeerError, Refused, Stream, Unreachable

LAST_WORDS_SECONDS_MAX = 2.0
"""For a child whose input has ended to say why, and close. It has nothing else to do then."""

Faults = (Unreachable, Refused, PeerError)


@asynccontextmanager
async def child_socket(path: str) -> AsyncGenerator[socket.socket]:
    """A new connection to a stage's process: a new life of the ring for it. Raises OSError."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as child:
        child.setblocking(False)
        await asyncio.get_running_loop().sock_connect(child, path)
        yield child


async def bridge(child: socket.socket, incoming: Stream, outgoing: Stream) -> str:
    """Until one of the three ends; returns which, and why. The caller closes them."""
    async with asyncio.TaskGroup() as tasks:
        inward = tasks.create_task(_inward(incoming, child), name="ring to child")
        outward = tasks.create_task(_outward(child, outgoing), name="child to ring")
        watch = tasks.create_task(_watch(outgoing), name="stage after")
        every = (inward, outward, watch)
        done, _ = await asyncio.wait(every, return_when=asyncio.FIRST_COMPLETED)
        reason = next(task for task in every if task in done).result()
        if done == {inward}:
            await asyncio.wait(
                (outward, watch), timeout=LAST_WORDS_SECONDS_MAX, return_when=asyncio.FIRST_COMPLETED
            )
        for task in every:
            task.cancel()
    return reason


async def _inward(incoming: Stream, child: socket.socket) -> str:
    loop = asyncio.get_running_loop()
    reason = f"the stage before ({short(incoming.peer)}) ended the ring"
    try:
        while (data := await incoming.receive()) is not None:
            await loop.sock_sendall(child, data)
    except Faults as fault:
        reason = f"the stage before is gone: {fault}"
    except OSError:
        return "the stage's process takes no more"
    with suppress(OSError):
        child.shutdown(socket.SHUT_WR)
    return reason


async def _outward(child: socket.socket, outgoing: Stream) -> str:
    loop = asyncio.get_running_loop()
    buffer = memoryview(bytearray(FRAME_BYTES_MAX))
    try:
        while size := await loop.sock_recv_into(child, buffer):
            await outgoing.send(bytes(buffer[:size]))
    except OSError as error:
        return f"the stage's process broke off: {error.strerror or error}"
    except Faults as fault:
        return f"the stage after is gone: {fault}"
    with suppress(*Faults):
        await outgoing.finish()  # so that the child's last word arrives
    return "the stage's process ended the ring"


async def _watch(outgoing: Stream) -> str:
    """The stage after says nothing on this stream, but its end is seen here first."""
    try:
        said = await outgoing.receive()
    except Faults as fault:
        return f"the stage after is gone: {fault}"
    does = "ended the ring" if said is None else "speaks against the ring's direction"
    return f"the stage after ({short(outgoing.peer)}) {does}"
