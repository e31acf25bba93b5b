"""A model's files as a source of ranges, from the members that hold them whole.

Counterpart: `byte_serving.py`. Each chunk is checked against a manifest that a member has signed. A holder
that gives something else is not asked again; one that breaks off is tried again a little later. When nobody
is left, another source is asked, where there is one: the origin, as a rule.
"""

import asyncio
import logging
from collections import Counter
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass

from mesh_llm.core.errors import DownloadFailed
from mesh_llm.core.ids import NodeId, short
from mesh_llm.mesh.transport import Kind, PeerError, Refused, Unreachable
from mesh_llm.models.stages.ranges import RangeSource
from mesh_llm.runtime.tasks import unwrapped
from mesh_llm.splits.holder_link import HolderLink, Open
from mesh_llm.splits.part_ranges import PartRanges

logger = logging.getLogger(__name__)

TRIES_MAX = 3
"""In a row, for a holder that breaks off without having brought anything."""

RETRY_SECONDS = 0.5


@dataclass(frozen=True, slots=True)
class PartFile:
    """One file of the model, as the leader says it."""

    size: int
    """Bytes."""
    root: bytes | None = None
    """Of the only manifest to be believed; None: the first that a member has signed."""


class PeerRanges:
    """`RangeSource` over several holders. `open` makes it."""

    def __init__(
        self,
        model: str,
        parts: Sequence[PartFile],
        holders: Callable[[], Sequence[NodeId]],
        open_stream: Open,
        is_member: Callable[[NodeId], bool],
        fallback: RangeSource | None,
        tasks: asyncio.TaskGroup,
    ) -> None:
        self._model = model
        self._parts = [
            PartRanges(model, number, part.size, part.root, is_member) for number, part in enumerate(parts)
        ]
        self._holders = holders
        self._left: list[NodeId] = []
        """Holders that may be asked."""
        self._open = open_stream
        self._fallback = fallback
        self._tasks = tasks
        self._failures: Counter[NodeId] = Counter()
        self._links: dict[tuple[NodeId, PartRanges], asyncio.Task[None]] = {}
        self._closed = False
        self.given_up: dict[NodeId, str] = {}
        """Holders that are not asked any more, and why."""

    @classmethod
    @asynccontextmanager
    async def open(
        cls,
        model: str,
        parts: Sequence[PartFile],
        holders: Callable[[], Sequence[NodeId]],
        open_stream: Open,
        is_member: Callable[[NodeId], bool],
        fallback: RangeSource | None = None,
    ) -> AsyncGenerator["PeerRanges"]:
        """`holders` is asked before each range: who comes later helps too. `open_stream`: `Mesh.stream`.
        `is_member`: whose signature counts."""
        with unwrapped():
            async with asyncio.TaskGroup() as tasks:
                ranges = cls(model, parts, holders, open_stream, is_member, fallback, tasks)
                try:
                    yield ranges
                finally:
                    ranges._close()

    def __repr__(self) -> str:
        return f"<PeerRanges {self._model} from {len(self._left)}>"

    @property
    def bytes_fetched(self) -> int:
        """From members."""
        return sum(part.bytes_fetched for part in self._parts)

    async def read(self, part: int, offset: int, length: int) -> bytes:
        """Raises DownloadFailed, and what the fallback raises; ValueError beyond the file."""
        data = await self._read_from_holders(self._parts[part], offset, length)
        if data is not None:
            return data
        if self._fallback is not None:
            return await self._fallback.read(part, offset, length)
        why = "; ".join(f"{short(node)}: {reason}" for node, reason in self.given_up.items())
        raise DownloadFailed(
            f"Nobody gives file {part + 1} of {self._model} any more ({why or 'no member holds it whole'}). "
            "Start a node that has the whole model, or fetch it here with `mesh-llm download`."
        )

    async def _read_from_holders(self, part: PartRanges, offset: int, length: int) -> bytes | None:
        asked = {*self._left, *self.given_up}
        self._left += [holder for holder in dict.fromkeys(self._holders()) if holder not in asked]
        while part.manifest is None:
            if not self._send_out(part):
                return None
            await part.wait_for_change()
        return await part.read(part.manifest, offset, length) if self._send_out(part) else None

    def _send_out(self, part: PartRanges) -> bool:
        """Every holder that may be asked is on its way for this file. False where there is none."""
        for holder in self._left:
            if (holder, part) not in self._links:
                self._links[holder, part] = self._tasks.create_task(
                    self._fetch(holder, part), name=f"ranges from {short(holder)}"
                )
        return bool(self._left)

    async def _fetch(self, holder: NodeId, part: PartRanges) -> None:
        try:
            while holder in self._left:
                await self._fetch_once(holder, part)
                if part.manifest is not None and not part.is_wanted:
                    return
        finally:
            del self._links[holder, part]
            if not self._left:
                part.fail()
            elif part.is_wanted and not self._closed:
                self._send_out(part)  # it gave back what somebody else can fetch

    async def _fetch_once(self, holder: NodeId, part: PartRanges) -> None:
        link = None
        try:
            async with self._open(holder, Kind.BYTES) as stream:
                link = HolderLink(stream, part)
                await link.run()
        except (Refused, PeerError) as error:
            self._give_up(holder, str(error))
        except Unreachable as error:
            self._failures[holder] = 1 if link and link.has_brought else self._failures[holder] + 1
            if self._failures[holder] >= TRIES_MAX:
                self._give_up(holder, str(error))
            else:
                await asyncio.sleep(RETRY_SECONDS)

    def _give_up(self, holder: NodeId, reason: str) -> None:
        self.given_up.setdefault(holder, reason)
        if holder in self._left:
            self._left.remove(holder)
            logger.info("%s is not asked for bytes of %s any more: %s", short(holder), self._model, reason)
        for (node, _), task in self._links.items():
            if node == holder and task is not asyncio.current_task():
                task.cancel()

    def _close(self) -> None:
        self._closed = True
        for task in self._links.values():
            task.cancel()
