"""How notices travel: each new one to everybody connected, and all of them where two members' sets differ.

What a notice means is decided in `admission.py`; this only carries. Counterpart: the same on other members.
"""

import asyncio
from collections.abc import Callable
from contextlib import suppress

from mesh_llm.core.ids import NodeId, short
from mesh_llm.mesh.admission.admission import Admission
from mesh_llm.mesh.admission.notices import Effect, NoticeReceived, decode_batch, encode_batches
from mesh_llm.mesh.exchanging import NOT_TODAY, exchange_with
from mesh_llm.mesh.peers import Peers
from mesh_llm.mesh.transport import Kind, Stream


class Noticing:
    def __init__(self, admission: Admission, peers: Peers, perform: Callable[[list[Effect]], None]) -> None:
        self._admission = admission
        self._peers = peers
        self._perform = perform
        self._tasks: asyncio.TaskGroup

    def begin(self, tasks: asyncio.TaskGroup) -> None:
        self._tasks = tasks

    def forward(self, notices: tuple[bytes, ...], besides: NodeId | None) -> None:
        for peer in self._peers.connected():
            if peer != besides:
                self._tasks.create_task(self._tell(peer, notices), name=f"notices to {short(peer)}")

    def reconcile(self, peer: NodeId) -> None:
        self._tasks.create_task(self._reconcile(peer), name=f"records with {short(peer)}")

    async def take(self, stream: Stream) -> None:
        """A member's NOTICE stream. Raises PeerError, Unreachable."""
        await self._receive(stream)
        await stream.finish()

    async def answer(self, stream: Stream) -> None:
        """A member's RECORDS stream: each side says its digest; where they differ, this side gives all that
        it holds, and the other what of its own was not among that. Raises PeerError, Unreachable."""
        theirs = await stream.receive()
        await stream.send(self._digest())
        if theirs != self._digest():
            await self._send(stream, self._admission.notices.all())
        await stream.finish()
        await self._receive(stream)

    async def _tell(self, peer: NodeId, notices: tuple[bytes, ...]) -> None:
        with suppress(*NOT_TODAY):
            async with exchange_with(peer, Kind.NOTICE, self._peers) as stream:
                await self._send(stream, notices)
                await stream.finish()
                await stream.receive()  # its end: all has arrived

    async def _reconcile(self, peer: NodeId) -> None:
        with suppress(*NOT_TODAY):
            async with exchange_with(peer, Kind.RECORDS, self._peers) as stream:
                await stream.send(self._digest())
                theirs = await stream.receive()
                if theirs is not None and theirs != self._digest():
                    given = await self._receive(stream)
                    await self._send(stream, self._admission.notices.besides(given))
                await stream.finish()
                await stream.receive()

    async def _receive(self, stream: Stream) -> list[bytes]:
        given: list[bytes] = []
        while (frame := await stream.receive()) is not None:
            notices = decode_batch(frame)
            self._take_in(notices, stream.peer)
            given += notices
        return given

    def _take_in(self, notices: tuple[bytes, ...], sender: NodeId) -> None:
        """All of a frame at once: judging everybody anew and writing the ledger costs the same for each."""
        effects: list[Effect] = []
        try:
            for notice in notices:
                effects += self._admission.handle(NoticeReceived(notice, sender))
        finally:
            self._perform(effects)

    async def _send(self, stream: Stream, notices: tuple[bytes, ...]) -> None:
        for frame in encode_batches(notices):
            await stream.send(frame)

    def _digest(self) -> bytes:
        return self._admission.notices.digest()
