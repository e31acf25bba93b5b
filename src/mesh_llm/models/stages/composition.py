"""A GGUF file composed of pieces of others: which bytes are its own, and where all others come from.

Pure. Counterparts: `layout.py` says what a stage holds, `experts/layout.py` what a cut of experts does, and
`writing.py` carries both out. What a tensor or a key means is not known here.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

from mesh_llm.models.gguf.contents import Header, Scalar
from mesh_llm.models.gguf.encoding import pack_key, pack_start, pack_tensor
from mesh_llm.models.gguf.tensors import TensorInfo

NewValue = Scalar | tuple[Scalar, ...]


@dataclass(frozen=True, slots=True)
class Copy:
    """Bytes of the model's files that the new file has too."""

    target: int
    """Offset in the new file."""
    part: int
    """Which of the model's files, from 0."""
    offset: int
    """In that file."""
    length: int

    def continues(self, other: "Copy", gap_max: int) -> bool:
        """Whether both can be read at once, with what lies between them."""
        gap = self.target - other.target - other.length
        moved = self.offset - self.target == other.offset - other.target
        return self.part == other.part and moved and 0 <= gap <= gap_max


@dataclass(frozen=True, slots=True)
class Literal:
    """Bytes that are the new file's own."""

    target: int
    data: bytes


@dataclass(frozen=True, slots=True)
class FileLayout:
    """`literals` and `copies` do not overlap; what neither covers is zero."""

    literals: tuple[Literal, ...]
    copies: tuple[Copy, ...]
    """Ascending by target; none continues the one before."""
    bytes: int
    """Of the whole new file."""
    assigned_bytes: int
    """Of the tensors that it was given."""


@dataclass(frozen=True, slots=True)
class Stretch:
    """Neighbouring bytes of a tensor in the model's files."""

    offset: int
    """From the start of the file."""
    length: int


@dataclass(frozen=True, slots=True)
class Taken:
    """A tensor of the new file. Its own `offset` is set when it has found its place."""

    tensor: TensorInfo
    part: int
    stretches: tuple[Stretch, ...]
    """All its bytes, in order."""


def composed(
    parts: Sequence[Header], taken: Iterable[Taken], dropped: frozenset[str], changed: Mapping[str, NewValue]
) -> FileLayout:
    """A file of these tensors, in the order of the model's files, and of the first part's metadata.

    `dropped`: keys that are left out; `changed`: those that have another value, or are new.
    """
    alignment = parts[0].alignment
    placed = _placed(sorted(taken, key=lambda each: (each.part, each.stretches[0].offset)), alignment)
    head = _Pieces(0, [], [])
    _add_keys(head, parts[0], dropped, changed, tensors=len(placed))
    head.add(b"".join(pack_tensor(each.tensor) for each in placed))
    start = _padded(head.end, alignment)
    weights = [copy for each in placed for copy in _copies(each, start)]
    return FileLayout(
        literals=tuple(head.literals),
        copies=(*_joined(head.copies, 0), *_joined(weights, alignment - 1)),
        bytes=max(start, weights[-1].target + weights[-1].length),
        assigned_bytes=sum(each.tensor.bytes for each in placed),
    )


@dataclass(slots=True)
class _Pieces:
    """A stretch of the new file, made from front to back."""

    end: int
    literals: list[Literal]
    copies: list[Copy]

    def add(self, data: bytes) -> None:
        self.literals.append(Literal(self.end, data))
        self.end += len(data)

    def copy(self, part: int, offset: int, length: int) -> None:
        self.copies.append(Copy(self.end, part, offset, length))
        self.end += length


def _placed(taken: Iterable[Taken], alignment: int) -> list[Taken]:
    placed: list[Taken] = []
    end = 0
    for each in taken:
        placed.append(replace(each, tensor=replace(each.tensor, offset=end)))
        end = _padded(end + each.tensor.bytes, alignment)
    return placed


def _copies(taken: Taken, start: int) -> list[Copy]:
    target, copies = start + taken.tensor.offset, list[Copy]()
    for each in taken.stretches:
        copies.append(Copy(target, taken.part, each.offset, each.length))
        target += each.length
    return copies


def _add_keys(
    head: _Pieces, first: Header, dropped: frozenset[str], changed: Mapping[str, NewValue], tensors: int
) -> None:
    """In the model's order, so that what is copied stays together; new keys come last."""
    spans = first.spans
    new = [key for key in changed if key not in spans]
    head.add(pack_start(tensors, len(spans) - len(dropped) + len(new)))
    for key, span in spans.items():
        if key in changed:
            head.add(pack_key(key, changed[key]))
        elif key not in dropped:
            head.copy(0, span.offset, span.length)
    for key in new:
        head.add(pack_key(key, changed[key]))


def _joined(copies: Sequence[Copy], gap_max: int) -> list[Copy]:
    """Those that lie side by side in both files become one; the padding between tensors comes along."""
    joined = list(copies[:1])
    for before, copy in pairwise(copies):
        if copy.continues(before, gap_max):
            first = joined[-1]
            joined[-1] = replace(first, length=copy.target + copy.length - first.target)
        else:
            joined.append(copy)
    return joined


def _padded(offset: int, alignment: int) -> int:
    return -(-offset // alignment) * alignment
