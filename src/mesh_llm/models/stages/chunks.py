"""A file in chunks, and the hashes by which each is known: what lets a range from anybody be believed.

Pure. `manifests.py` makes the manifest of a file on disk; `splits/byte_serving.py` gives chunks by it,
`splits/peer_ranges.py` takes them. A digest is SHA-256: with the instructions that x86 has had since 2017
(AMD) and 2019 (Intel) and ARM since ARMv8 it runs at 1.8 GB/s a core here, BLAKE2b at 0.9; without them it
is half as fast as that.
"""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256

from mesh_llm.core.quantities import MIB

HASH_BYTES = 32

CHUNK_BYTES_MIN = 64 * 1024
"""Smaller ones would cost more in questions than they save at the edges of ranges."""

CHUNK_BYTES_MAX = 64 * MIB
"""Somebody must hold one whole before it can be believed."""

CHUNKS_MAX = 16_384
"""Of one file: their hashes are 512 KiB, which travel in one frame."""

FILE_BYTES_MAX = CHUNKS_MAX * CHUNK_BYTES_MAX
"""1 TiB: ten times the largest single file of a model known."""

ROOT_DOMAIN = b"mesh-llm chunks 1\0"


def chunk_bytes_for(file_bytes: int) -> int:
    """The same for everybody, so that manifests of equal files are equal. A power of two.

    Raises ValueError for a file that is empty or over FILE_BYTES_MAX.
    """
    if not 0 < file_bytes <= FILE_BYTES_MAX:
        raise ValueError(f"a file of {file_bytes} bytes has no chunks: 1 to {FILE_BYTES_MAX} are allowed")
    size = CHUNK_BYTES_MIN
    while size * CHUNKS_MAX < file_bytes:
        size *= 2
    return size


@dataclass(frozen=True, slots=True)
class Manifest:
    file_bytes: int
    hashes: bytes
    """Of all chunks, one after the other: a tuple of 16,384 would cost ten times the memory."""

    def __post_init__(self) -> None:
        if len(self.hashes) != HASH_BYTES * _count(self.file_bytes, chunk_bytes_for(self.file_bytes)):
            raise ValueError(f"{len(self.hashes)} bytes of hashes for a file of {self.file_bytes} bytes")

    def __repr__(self) -> str:
        return f"<Manifest {self.root.hex()[:10]} of {self.file_bytes} bytes>"

    @property
    def chunk_bytes(self) -> int:
        return chunk_bytes_for(self.file_bytes)

    @property
    def count(self) -> int:
        return len(self.hashes) // HASH_BYTES

    @property
    def root(self) -> bytes:
        """32 bytes that stand for the whole file."""
        return sha256(ROOT_DOMAIN + self.file_bytes.to_bytes(8, "big") + self.hashes).digest()

    def covering(self, offset: int, length: int) -> range:
        """The chunks that hold these bytes. Raises ValueError beyond the file."""
        if offset < 0 or length <= 0 or offset + length > self.file_bytes:
            raise ValueError(f"bytes {offset} to {offset + length} of a file of {self.file_bytes} bytes")
        return range(offset // self.chunk_bytes, (offset + length - 1) // self.chunk_bytes + 1)

    def start(self, chunk: int) -> int:
        """Of the chunk in the file; for `count` and beyond the file's end."""
        return min(chunk * self.chunk_bytes, self.file_bytes)

    def extent(self, chunks: range) -> tuple[int, int]:
        """Offset and length of neighbouring chunks."""
        start = self.start(chunks.start)
        return start, self.start(chunks.stop) - start

    def first_wrong(self, chunks: range, pieces: Sequence[bytes]) -> int | None:
        """The first of `chunks` that these bytes are not; `pieces` together should be all of them."""
        rest = deque(memoryview(piece) for piece in pieces)
        for chunk in chunks:
            digest, missing = sha256(), self.start(chunk + 1) - self.start(chunk)
            while missing and rest:
                piece = rest.popleft()
                if len(piece) > missing:
                    rest.appendleft(piece[missing:])
                    piece = piece[:missing]
                digest.update(piece)
                missing -= len(piece)
            if digest.digest() != self.hashes[chunk * HASH_BYTES : (chunk + 1) * HASH_BYTES]:
                return chunk
        return chunks.start if rest else None


def _count(file_bytes: int, chunk_bytes: int) -> int:
    return -(-file_bytes // chunk_bytes)
