"""Ranges of the model files that this node holds whole, for members that need layers of them.

Counterpart: `peer_ranges.py`. What may be had is decided by one map, from a model's identity to its files:
nothing that a peer says is ever part of a path. Asking stops when the asker reads no more; it cancels by
closing the stream.
"""

import asyncio
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import BinaryIO

from mesh_llm.core.errors import MeshError
from mesh_llm.core.ids import NodeId
from mesh_llm.core.quantities import MIB
from mesh_llm.mesh.admission.signatures import NodeKey
from mesh_llm.mesh.transport import PeerError, Stream, Unreachable
from mesh_llm.models.records import Identity
from mesh_llm.models.stages.chunks import Manifest
from mesh_llm.models.stages.manifests import Manifests
from mesh_llm.models.threads import run_to_end
from mesh_llm.runtime.tasks import beside, unwrapped
from mesh_llm.splits import byte_messages
from mesh_llm.splits.byte_messages import Hashing, Held, SignedManifest, Want
from mesh_llm.splits.faults import one_fault

STREAMS_OF_PEER_MAX = 64
"""At once: each is an open file and at most PIECES_AHEAD + 2 pieces. A node that fetches needs one a file."""

PIECE_BYTES = 1 * MIB
"""In one frame, as large as a frame may be: the fewer the faster."""

PIECES_AHEAD = 2
"""Read from the disk while others are on their way."""

HASHING_APART_S = 1.0

Files = Callable[[str], Sequence[Path] | None]
"""The files of a model that lies here whole and verified, in the order of its set; None for all others."""


class ByteServer:
    def __init__(self, key: NodeKey, files: Files, manifests: Manifests) -> None:
        self._key = key
        self._files = files
        self._manifests = manifests
        self._signed: dict[tuple[str, int, bytes], SignedManifest] = {}
        self._open: Counter[NodeId] = Counter()
        self.bytes_sent = 0

    def __repr__(self) -> str:
        return f"<ByteServer {self._open.total()} streams>"

    async def answer(self, stream: Stream) -> None:
        """Until the asker has enough. Raises PeerError, Unreachable."""
        if self._open[stream.peer] >= STREAMS_OF_PEER_MAX:
            await stream.refuse(f"{STREAMS_OF_PEER_MAX} streams are open already: end one of them.")
            return
        self._open[stream.peer] += 1
        try:
            await self._answer(stream)
        finally:
            self._open[stream.peer] -= 1
            if not self._open[stream.peer]:
                del self._open[stream.peer]

    async def _answer(self, stream: Stream) -> None:
        want = byte_messages.decode_want(await stream.receive() or b"")
        path = self._path_of(want)
        if path is None:
            await stream.refuse("This node does not hold that file.")
            return
        try:
            manifest, identity = await self._manifest_of(path, stream)
            file = await run_to_end(_opened, path, identity)
        except (OSError, MeshError):
            await stream.refuse("This node cannot read that file now.")  # its own log and status say why
            return
        with file:
            known = want.root == manifest.root
            held = Held(manifest=None if known else self._vouch(want, manifest))
            await stream.send(byte_messages.encode(held))
            await self._serve(stream, file, manifest)

    def _path_of(self, want: Want) -> Path | None:
        files = self._files(want.model) or ()
        return files[want.part] if want.part < len(files) else None

    async def _manifest_of(self, path: Path, stream: Stream) -> tuple[Manifest, Identity]:
        """Which takes minutes for a large file that nobody has asked for before: the asker hears of it."""
        with unwrapped():
            async with asyncio.TaskGroup() as tasks:
                making = tasks.create_task(self._manifests.manifest_of(path), name="manifest")
                while not (await asyncio.wait([making], timeout=HASHING_APART_S))[0]:
                    fraction = self._manifests.fraction(path)
                    await stream.send(byte_messages.encode(Hashing(fraction=fraction)))
        return making.result()

    def _vouch(self, want: Want, manifest: Manifest) -> SignedManifest:
        place = (want.model, want.part, manifest.root)
        if place not in self._signed:
            self._signed[place] = byte_messages.sign_manifest(self._key, want.model, want.part, manifest)
        return self._signed[place]

    async def _serve(self, stream: Stream, file: BinaryIO, manifest: Manifest) -> None:
        pieces: asyncio.Queue[bytes | None] = asyncio.Queue(PIECES_AHEAD)
        with one_fault():
            async with beside(reading=_read_what_is_asked(stream, file, manifest, pieces)):
                while (piece := await pieces.get()) is not None:
                    await stream.send(piece)
                    self.bytes_sent += len(piece)
        await stream.finish()


async def _read_what_is_asked(
    stream: Stream, file: BinaryIO, manifest: Manifest, pieces: asyncio.Queue[bytes | None]
) -> None:
    while (frame := await stream.receive()) is not None:
        chunks = byte_messages.decode_range(frame).chunks
        if chunks.stop > manifest.count:
            raise PeerError(f"A wish for chunk {chunks.stop - 1} of a file of {manifest.count}.")
        offset, length = manifest.extent(chunks)
        for start in range(offset, offset + length, PIECE_BYTES):
            size = min(PIECE_BYTES, offset + length - start)
            await pieces.put(await run_to_end(_read, file, start, size))
    await pieces.put(None)


def _opened(path: Path, identity: Identity) -> BinaryIO:
    """The file whose manifest was made. Raises OSError."""
    file = path.open("rb", buffering=0)
    if Identity.of(path) != identity:
        file.close()
        raise OSError("the file was replaced meanwhile")
    return file


def _read(file: BinaryIO, start: int, size: int) -> bytes:
    """Exactly so many. Raises Unreachable: for the asker it is as if this node were gone."""
    parts: list[bytes] = []
    try:
        file.seek(start)
        while size:
            part = file.read(size)
            if not part:
                raise Unreachable("the file has become shorter")
            parts.append(part)
            size -= len(part)
    except OSError as error:
        raise Unreachable(f"the file cannot be read any more: {error.strerror}") from None
    return parts[0] if len(parts) == 1 else b"".join(parts)
