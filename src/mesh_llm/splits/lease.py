"""The leader's end of a lease: a stage on another node, for as long as the context lasts.

Counterpart: `hosting.py`. What to do about what is heard is `assembly.py`'s business.
"""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from mesh_llm.core.ids import NodeId
from mesh_llm.mesh.transport import Kind, PeerError, Stream, Unreachable
from mesh_llm.splits import messages
from mesh_llm.splits.holder_link import Open
from mesh_llm.splits.messages import Assign, FromHolder, Link, Release, Surveyed


class Lease:
    def __init__(self, stream: Stream, assign: Assign) -> None:
        self._stream = stream
        self.assign = assign

    def __repr__(self) -> str:
        return f"<Lease of {self.assign.layers}>"

    @classmethod
    @asynccontextmanager
    async def open(cls, holder: NodeId, assign: Assign, open_stream: Open) -> "AsyncGenerator[Lease]":
        """Asks for the stage; the answer is the first thing to `hear`. Raises Unreachable, Refused."""
        async with open_stream(holder, Kind.STAGE) as stream:
            await stream.send(messages.encode(assign))
            yield cls(stream, assign)

    async def hear(self) -> FromHolder:
        """The next word of the holder: `Accepted` or `Declined` first; none follows `Declined` and `Lost`.
        Raises Unreachable, Refused, PeerError."""
        while (frame := await self._stream.receive()) is not None:
            said = messages.decode_from_holder(frame)
            if isinstance(said, Surveyed):
                raise PeerError("a survey's answer in the middle of a lease")
            if said is not None:
                return said
        raise Unreachable("the holder has ended the lease")

    async def link(self, link: Link) -> None:
        """Begin a session; `Linked` or `Unlinked` tells how that went."""
        await self._stream.send(messages.encode(link))

    async def release(self) -> None:
        """Give the stage up in good order. Leaving the context without it does the same, less politely."""
        await self._stream.send(messages.encode(Release()))
        await self._stream.finish()
