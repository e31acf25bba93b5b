"""What the full model said of held-out text, on disk: so that it and a cut need not be in memory at once.

A note in JSON (the tokens, what was scored, sums over all) beside rows of log-probabilities as 16-bit floats,
one for each scored token: 100 MB for a vocabulary of 49,152, and never more than ROWS_BYTES_MAX. The note is
written last, so rows without one are of a child that was killed.
"""

import json
import math
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, cast

import numpy as np

from mesh_llm.core.errors import ModelDamaged
from mesh_llm.engine.experts.comparison import Row
from mesh_llm.models.records import replace_text

VERSION = 1
NOTE_BYTES_MAX = 2**20
ROWS_BYTES_MAX = 512 * 2**20
"""1020 tokens of the largest vocabulary, 262,144."""
CHECKED_AT_ONCE_BYTES = 2**20


@dataclass(frozen=True, slots=True)
class Reference:
    chunks: tuple[tuple[int, ...], ...]
    """Tokens, each from an empty cache; of each the second half is scored."""
    vocabulary: int
    perplexity: float


def first_scored(tokens: int) -> int:
    """As llama-perplexity: what comes with too little before it is not scored."""
    return tokens // 2


def scored(chunks: Sequence[Sequence[int]]) -> int:
    """Tokens that are: the one after each of the second half but the last."""
    return sum(len(chunk) - 1 - first_scored(len(chunk)) for chunk in chunks)


def bounded(chunks: Sequence[list[int]], vocabulary: int) -> list[list[int]]:
    """As many of the chunks as go into ROWS_BYTES_MAX."""
    fitting = list(chunks)
    while fitting and scored(fitting) * 2 * vocabulary > ROWS_BYTES_MAX:
        fitting.pop()
    return fitting


def rows_path(path: Path) -> Path:
    return path.with_suffix(".rows")


class RowsWriter:
    """Appends rows; `checksum` is of all of them."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.checksum = 0

    def add(self, row: Row) -> None:
        data = row.astype("<f2").tobytes()
        self.checksum = zlib.crc32(data, self.checksum)
        self._file.write(data)


def rows_of(path: Path, reference: Reference) -> Iterator[Row]:
    """One for each scored token, in order. Raises OSError."""
    with rows_path(path).open("rb") as file:
        for _ in range(scored(reference.chunks)):
            data = file.read(2 * reference.vocabulary)
            yield np.frombuffer(data, "<f2").astype(np.float32)


def write_note(path: Path, identity: str, reference: Reference, checksum: int) -> None:
    """Behind its rows. Raises OSError."""
    note = {
        "version": VERSION,
        "model": identity,
        "chunks": reference.chunks,
        "vocabulary": reference.vocabulary,
        "perplexity": reference.perplexity,
        "checksum": checksum,
    }
    replace_text(path, json.dumps(note))


def read_reference(path: Path, identity: str) -> Reference | None:
    """None where there is none. Raises ModelDamaged where note or rows are damaged, of another version or
    another model: it must be made anew."""
    try:
        with path.open("rb") as file:
            text = file.read(NOTE_BYTES_MAX)
        reference, checksum = _decoded(text, identity)
        expected = scored(reference.chunks) * 2 * reference.vocabulary
        if rows_path(path).stat().st_size != expected:
            raise _damaged(f"its rows do not have {expected:,} bytes")
        if _checksum(rows_path(path)) != checksum:
            raise _damaged("its rows have been altered")
    except FileNotFoundError:
        return None
    except OSError as error:
        raise _damaged(f"{path} cannot be read: {error.strerror}") from error
    return reference


def _decoded(text: bytes, identity: str) -> tuple[Reference, int]:
    try:
        found = cast("object", json.loads(text))
    except (ValueError, RecursionError):
        raise _damaged("its note is cut off") from None
    note = cast("dict[str, object]", found) if isinstance(found, dict) else {}
    if note.get("version") != VERSION or note.get("model") != identity:
        raise _damaged("it is of another model or version")
    chunks, checksum = _chunks(note.get("chunks")), note.get("checksum")
    vocabulary, perplexity = note.get("vocabulary"), note.get("perplexity")
    if not (isinstance(vocabulary, int) and isinstance(perplexity, float) and isinstance(checksum, int)):
        raise _damaged("its note lacks something")
    if not chunks or max(map(max, chunks)) >= vocabulary or not 1 <= perplexity < math.inf:
        raise _damaged("its note makes no sense")
    return Reference(chunks, vocabulary, perplexity), checksum


def _chunks(value: object) -> tuple[tuple[int, ...], ...]:
    """Empty where they are none."""
    outer = cast("list[object]", value) if isinstance(value, list) else []
    found: list[tuple[int, ...]] = []
    for each in outer:
        inner = cast("list[object]", each) if isinstance(each, list) else []
        tokens = tuple(token for token in inner if isinstance(token, int) and token >= 0)
        if len(tokens) < 3 or len(tokens) != len(inner):
            return ()
        found.append(tokens)
    return tuple(found)


def _checksum(path: Path) -> int:
    checksum = 0
    with path.open("rb") as file:
        while data := file.read(CHECKED_AT_ONCE_BYTES):
            checksum = zlib.crc32(data, checksum)
    return checksum


def _damaged(why: str) -> ModelDamaged:
    return ModelDamaged(
        f"What the full model says of held-out text is not known: {why}. It must be asked again."
    )
