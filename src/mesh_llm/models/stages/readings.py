"""In which ranges the bytes of a new file are asked for: neither too many questions nor too many bytes.

Pure. `writing.py` asks. Rows of experts lie apart in the model's files, some of them four bytes long: ranges
that are near each other are asked for as one, and what lies between them is thrown away.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby, pairwise

from mesh_llm.core.quantities import MIB
from mesh_llm.models.stages.composition import Copy, FileLayout

PIECE_BYTES = 8 * MIB
"""Asked for at once, at most."""

GAP_BYTES_MAX = 256 * 1024
"""What takes as long to come as another question does, at 20 Mbit/s and 100 ms."""

WASTE_MAX = 0.04
"""Of the new file's bytes: fetched beside them at most, all gaps together."""


@dataclass(frozen=True, slots=True)
class Reading:
    """One range of one of the model's files."""

    part: int
    offset: int
    length: int
    copies: tuple[Copy, ...]
    """What of it is wanted: ascending in both files, and inside the range."""

    @property
    def end(self) -> int:
        """In the new file: with it, all that comes before this is there."""
        return self.copies[-1].target + self.copies[-1].length


def readings(layout: FileLayout, mark: int) -> Iterator[Reading]:
    """What is missing above `mark`, an offset in the new file, in its order."""
    gap_max = _gap_max(layout)
    row: list[Copy] = []
    for piece in _pieces(layout, mark):
        if row and not _goes_with(piece, row, gap_max):
            yield _reading(row)
            row = []
        row.append(piece)
    if row:
        yield _reading(row)


def _pieces(layout: FileLayout, mark: int) -> Iterator[Copy]:
    for copy in layout.copies:
        end = copy.target + copy.length
        for target in range(max(copy.target, mark), end, PIECE_BYTES):
            offset = copy.offset + target - copy.target
            yield Copy(target, copy.part, offset, min(PIECE_BYTES, end - target))


def _goes_with(piece: Copy, row: list[Copy], gap_max: int) -> bool:
    gap = _gap(row[-1], piece)
    return gap is not None and gap <= gap_max and piece.offset + piece.length - row[0].offset <= PIECE_BYTES


def _gap(before: Copy, copy: Copy) -> int | None:
    """Bytes between them in the model's files; None where one question cannot be for both."""
    gap = copy.offset - before.offset - before.length
    return gap if before.part == copy.part and gap >= 0 else None


def _gap_max(layout: FileLayout) -> int:
    """The widest gap that is read over: all up to it together waste no more than they may."""
    found = (_gap(before, copy) for before, copy in pairwise(layout.copies))
    gaps = sorted(gap for gap in found if gap is not None and gap <= GAP_BYTES_MAX)
    widest, waste = 0, 0
    for gap, equal in groupby(gaps):
        waste += gap * len(list(equal))
        if waste > WASTE_MAX * layout.assigned_bytes:
            break
        widest = gap
    return widest


def _reading(row: list[Copy]) -> Reading:
    offset = row[0].offset
    return Reading(row[0].part, offset, row[-1].offset + row[-1].length - offset, tuple(row))
