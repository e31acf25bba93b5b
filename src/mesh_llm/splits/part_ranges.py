"""Ranges of one file from all members that hold it: each chunk fetched once, from whoever has time for it.

Knows no streams and no mesh: links take runs of chunks and bring them (`holder_link.py`); `peer_ranges.py`
says which holders may be asked.
"""

import asyncio
import logging
from collections import OrderedDict, deque
from collections.abc import Callable, Iterator
from contextlib import suppress
from itertools import groupby

from mesh_llm.core.ids import NodeId, short
from mesh_llm.core.quantities import MIB
from mesh_llm.mesh.transport import PeerError
from mesh_llm.models.stages.chunks import Manifest
from mesh_llm.runtime.bell import Bell
from mesh_llm.splits.byte_messages import SignedManifest, Want, check_manifest
from mesh_llm.splits.holder_link import Run

logger = logging.getLogger(__name__)

RUN_BYTES = 4 * MIB
"""Asked for at once, or one chunk where that is more: one by one, small chunks cost more than they carry."""

EDGE_BYTES_MAX = 32 * MIB
"""Of chunks kept because only a part of them has been read: the next range often begins there."""

EDGES_MIN = 2
"""Kept whatever their size."""

IDLE_SECONDS_MAX = 5.0
"""After which a link with nothing to fetch is closed; the next range opens one again."""


class PartRanges:
    def __init__(
        self, model: str, part: int, size: int, root: bytes | None, is_member: Callable[[NodeId], bool]
    ) -> None:
        """`root` of the only manifest to be believed; None: the first that a member signed. `size`: bytes of
        the file."""
        self._model = model
        self._part = part
        self._size = size
        self._root = root
        self._is_member = is_member
        self._believed: NodeId | None = None
        """Who signed it, where no root was named."""
        self.manifest: Manifest | None = None
        self.bytes_fetched = 0
        self._waiting: deque[Run] = deque()
        self._runs: dict[int, Run] = {}
        """By chunk: all that is waiting or under way."""
        self._edges: OrderedDict[int, bytes] = OrderedDict()
        self._work = Bell()
        self._changed = Bell()

    def __repr__(self) -> str:
        return f"<PartRanges {self._model} part {self._part}>"

    @property
    def _name(self) -> str:
        """For people."""
        return f"file {self._part + 1} of {self._model}"

    # -- for readers ---------------------------------------------------------------------------------------

    @property
    def is_wanted(self) -> bool:
        """Whether something waits to be fetched."""
        return any(run.readers for run in self._waiting)

    async def wait_for_change(self) -> None:
        """The manifest has come, or `fail` was called."""
        await self._changed.wait_for_ring()

    async def read(self, manifest: Manifest, offset: int, length: int) -> bytes | None:
        """None where nobody could bring all of it. Raises ValueError beyond the file."""
        chunks = manifest.covering(offset, length)
        self._want_missing(manifest, chunks)
        sources = {chunk: self._source(chunk) for chunk in chunks}
        runs = {source for source in sources.values() if isinstance(source, Run)}
        for run in runs:
            run.readers += 1
        try:
            for run in runs:
                await run.over.wait()
        finally:
            for run in runs:
                run.readers -= 1
        if any(run.pieces is None for run in runs):
            return None
        for chunk in {chunks[0], chunks[-1]}:
            self._keep_edge(manifest, chunk, sources[chunk], offset, offset + length)
        return b"".join(_views(manifest, sources, offset, offset + length))

    def fail(self) -> None:
        """Nobody is left to ask."""
        for run in {*self._runs.values(), *self._waiting}:
            run.over.set()
        self._runs.clear()
        self._waiting.clear()
        self._changed.ring()

    def _want_missing(self, manifest: Manifest, chunks: range) -> None:
        per_run = max(1, RUN_BYTES // manifest.chunk_bytes)
        missing = [chunk for chunk in chunks if chunk not in self._runs and chunk not in self._edges]
        for first, last in _stretches(missing):
            for start in range(first, last + 1, per_run):
                wanted = range(start, min(start + per_run, last + 1))
                run = Run(wanted, manifest.extent(wanted)[1])
                self._waiting.append(run)
                self._runs.update(dict.fromkeys(wanted, run))
        self._work.ring()

    def _source(self, chunk: int) -> Run | bytes:
        kept = self._edges.get(chunk)
        if kept is None:
            return self._runs[chunk]
        self._edges.move_to_end(chunk)
        return kept

    def _keep_edge(self, manifest: Manifest, chunk: int, source: Run | bytes, offset: int, end: int) -> None:
        """Of a chunk that was not read whole: its neighbour will be."""
        start, stop = manifest.start(chunk), manifest.start(chunk + 1)
        if isinstance(source, bytes) or (offset <= start and end >= stop):
            return
        self._edges[chunk] = b"".join(_views(manifest, {chunk: source}, start, stop))
        while len(self._edges) > EDGES_MIN and sum(map(len, self._edges.values())) > EDGE_BYTES_MAX:
            self._edges.popitem(last=False)

    # -- holder_link.Errands -------------------------------------------------------------------------------

    @property
    def want(self) -> Want:
        return Want(model=self._model, part=self._part, root=self.manifest.root if self.manifest else None)

    def believe(self, signed: SignedManifest | None) -> Manifest:
        if signed is not None:
            vouched = check_manifest(signed, self._model, self._part)
            if not self._is_member(vouched.signer):
                raise PeerError("a manifest that no member has signed")
            self._agree_on(vouched.signer, vouched.manifest)
        if self.manifest is None:
            raise PeerError("no manifest where none was known")
        return self.manifest

    def _agree_on(self, signer: NodeId, manifest: Manifest) -> None:
        if manifest.file_bytes != self._size or self._root not in (None, manifest.root):
            self._tell_of_dispute(signer)
            raise PeerError("the manifest of another file: its holder has something else under this name")
        if self.manifest is None:
            if self._root is None:
                self._believed = signer
                logger.info("%s: its chunks are believed to be what %s has signed", self._name, short(signer))
            self._root = manifest.root
            self.manifest = manifest
            self._changed.ring()

    def _tell_of_dispute(self, signer: NodeId) -> None:
        """Nobody here can say who is right: a published SHA-256 is of the whole file."""
        if self._believed is not None:
            logger.warning(
                "%s: %s and %s hold different files as the same one, so one of them is damaged or lies. What"
                " the first signed is used: if it answers nonsense, look at that node's file, and delete what"
                " was made of it here with `mesh-llm models prune`",
                self._name,
                short(self._believed),
                short(signer),
            )

    async def take(self) -> Run | None:
        with suppress(TimeoutError):
            async with asyncio.timeout(IDLE_SECONDS_MAX):
                while True:
                    while self._waiting:
                        run = self._waiting.popleft()
                        if run.readers:
                            return run
                        self._forget(run)
                    await self._work.wait_for_ring()
        return None

    def bring(self, run: Run, pieces: tuple[bytes, ...]) -> None:
        self.bytes_fetched += run.size
        run.pieces = pieces
        self._forget(run)
        run.over.set()

    def give_back(self, runs: list[Run]) -> None:
        self._waiting.extendleft(reversed(runs))
        self._work.ring()

    def _forget(self, run: Run) -> None:
        for chunk in run.chunks:
            if self._runs.get(chunk) is run:
                del self._runs[chunk]


def _stretches(chunks: list[int]) -> Iterator[tuple[int, int]]:
    """First and last of those that lie side by side; `chunks` ascend."""
    for _, group in groupby(enumerate(chunks), lambda pair: pair[1] - pair[0]):
        stretch = [chunk for _, chunk in group]
        yield stretch[0], stretch[-1]


def _views(
    manifest: Manifest, sources: dict[int, Run | bytes], offset: int, end: int
) -> Iterator[memoryview]:
    """Bytes [offset, end) of the file, without copying; `sources` has each of its chunks, ascending."""
    for _, group in groupby(sources.items(), lambda item: id(item[1])):
        items = list(group)
        source = items[0][1]
        is_run = isinstance(source, Run)
        place = manifest.start(source.chunks.start if is_run else items[0][0])
        first, last = manifest.start(items[0][0]), manifest.start(items[-1][0] + 1)
        for piece in (source.pieces or ()) if is_run else (source,):
            begin, stop = max(offset, first, place), min(end, last, place + len(piece))
            if begin < stop:
                yield memoryview(piece)[begin - place : stop - place]
            place += len(piece)
