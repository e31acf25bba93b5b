"""One stage that another node holds for this one, as long as its STAGE stream lives.

What `lease.py` hears, as something to wait for. Decides nothing: it says what the holder says.
"""

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager, suppress

from mesh_llm.core.ids import NodeId, short
from mesh_llm.mesh.transport import PeerError, Refused, Unreachable
from mesh_llm.runtime.bell import Bell
from mesh_llm.runtime.tasks import beside
from mesh_llm.splits.holder_link import Open
from mesh_llm.splits.lease import Lease
from mesh_llm.splits.messages import (
    Accepted,
    Assign,
    Declined,
    Fetching,
    FromHolder,
    Link,
    Linked,
    Loading,
    Lost,
    Ready,
    Unlinked,
)

ACCEPT_SECONDS_MAX = 15.0
"""From the assignment to a yes or no: the holder looks at its memory and its claims, nothing more."""

LINK_SECONDS_MAX = 30.0
"""From `Link` to `Linked`: both neighbours must have been dialled."""

FETCHING_SHARE = 0.7
"""Of the progress that is shown: bytes over a network take longer than a load."""


class StageLost(Exception):
    """The stage is not to be had, or not any more. Says which, and why."""


class BorrowedStage:
    """Use as `async with borrowed_stage(...) as stage`: leaving gives it back."""

    def __init__(self, node: NodeId, name: str, lease: Lease, on_progress: Callable[[float], None]) -> None:
        self.node = node
        self.name = name
        self._lease = lease
        self._on_progress = on_progress
        self._bell = Bell()
        self._accepted = False
        self._ready: Ready | None = None
        self._linked: bytes | None = None
        """The session that is linked now."""
        self._unlinked: dict[bytes, str] = {}
        """Why the last session ended."""
        self._lost: str | None = None

    async def wait_until_accepted(self) -> None:
        """Raises StageLost."""
        await self._wait_for(
            lambda: self._accepted, ACCEPT_SECONDS_MAX, "did not say whether it will hold it"
        )

    async def wait_until_ready(self) -> Ready:
        """Loaded; takes as long as its bytes take. Raises StageLost."""
        await self._wait_for(lambda: self._ready is not None, None, "")
        assert self._ready is not None
        return self._ready

    async def link(self, link: Link) -> None:
        """A new life of the ring. Raises StageLost, also where the holder could not link."""
        try:
            await self._lease.link(link)
        except Unreachable as error:
            raise StageLost(f"{self.name} {error}") from error
        await self._wait_for(
            lambda: self._linked == link.session or link.session in self._unlinked,
            LINK_SECONDS_MAX,
            "did not link its neighbours",
        )
        if self._linked != link.session:
            raise StageLost(f"{self.name} could not be linked: {self._unlinked[link.session]}")

    async def wait_until_unlinked(self, session: bytes) -> str:
        """Returns why the session ended. Raises StageLost where the stage went with it."""
        await self._wait_for(lambda: session in self._unlinked, None, "")
        return f"{self.name}: {self._unlinked[session]}"

    async def wait_until_lost(self) -> str:
        """Returns why."""
        try:
            await self._wait_for(lambda: False, None, "")
        except StageLost as lost:
            return str(lost)
        raise AssertionError("it cannot return")

    async def listen(self) -> None:
        """To the end of the lease."""
        try:
            while self._lost is None:
                self._take(await self._lease.hear())
        except (Unreachable, Refused, PeerError) as error:
            self._lose(str(error) or "cannot be reached")

    def _take(self, said: FromHolder) -> None:
        match said:
            case Accepted():
                self._accepted = True
            case Fetching(fraction=fraction):
                self._on_progress(FETCHING_SHARE * fraction)
            case Loading(fraction=fraction):
                self._on_progress(FETCHING_SHARE + (1 - FETCHING_SHARE) * fraction)
            case Ready():
                self._on_progress(1.0)
                self._ready = said
            case Linked(session=session):
                self._linked = session
            case Unlinked(session=session, reason=reason):
                self._linked = None
                self._unlinked = {session: reason}
            case Declined(reason=reason):
                self._lose(reason)
            case Lost(reason=reason):
                self._lose(f"the stage there ended: {reason}")
            case _:
                raise PeerError("an answer to what was not asked")
        self._bell.ring()

    def _lose(self, reason: str) -> None:
        self._lost = self._lost or f"{self.name}: {reason}"
        self._bell.ring()

    async def _wait_for(self, holds: Callable[[], bool], seconds_max: float | None, otherwise: str) -> None:
        try:
            async with asyncio.timeout(seconds_max):
                while not holds():
                    if self._lost is not None:
                        raise StageLost(self._lost)
                    await self._bell.wait_for_ring()
        except TimeoutError:
            raise StageLost(f"{self.name} {otherwise} within {seconds_max:.0f} s") from None


@asynccontextmanager
async def borrowed_stage(
    open_stream: Open, node: NodeId, name: str, assign: Assign, on_progress: Callable[[float], None]
) -> AsyncGenerator[BorrowedStage]:
    """`name` is the node's, for people; `on_progress` gets 0 to 1. Raises StageLost where the node cannot be
    reached, or speaks of no stages."""
    name = name or short(node)
    try:
        async with Lease.open(node, assign, open_stream) as lease:
            stage = BorrowedStage(node, name, lease, on_progress)
            async with beside(listening=stage.listen()):
                yield stage
            with suppress(Unreachable):
                await lease.release()
    except (Unreachable, Refused) as error:
        raise StageLost(f"{name} cannot hold a stage: {error}") from error
