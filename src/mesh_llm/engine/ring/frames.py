"""What goes round the ring of a split model: frames as bytes, checked before anything is believed.

The head sends a step to the first stage, each stage sends it on with its own output in place of its input,
and the last remote stage sends it home. Counterparts: `sockets.py` moves the bytes; `engine/stage/child.py`
and `engine/head/pipeline.py` act on frames. A frame is `u32 length | u8 kind | body`, little-endian; the
length counts kind and body, and is checked against `Shape.frame_bytes_max` before memory is taken.
"""

import struct
from dataclasses import dataclass
from enum import IntEnum
from typing import Any

import numpy as np
import numpy.typing as npt

from mesh_llm.core.stages import STAGES_MAX

VERSION = 1

COMMANDS_MAX = 4096
"""In one step: several for each sequence."""

REASON_CHARACTERS_MAX = 1000


class FrameError(Exception):
    """The other side broke the protocol of the ring: its link is dropped with this reason."""


@dataclass(frozen=True, slots=True)
class Shape:
    """What all members of one ring agree on; a frame that does not fit it is refused."""

    width: int
    """Elements of one hidden state."""
    batch: int
    """Rows of a step at most."""
    sequences: int
    """Sequence ids are below it."""
    context: int
    """Positions are below it."""

    @property
    def frame_bytes_max(self) -> int:
        """Of a whole frame without its length."""
        return 64 + 20 * COMMANDS_MAX + 4 * STAGES_MAX + self.batch * (8 + 4 * self.width)


class Operation(IntEnum):
    """On the KV cache of every stage, in order with the rows, before the rows of its own step."""

    DROP = 1
    """Positions [first, end) of a sequence; `end` -1: to its end."""
    COPY = 2
    """Positions [first, end) of `sequence` also belong to `target`."""
    CLEAR = 3
    """Everything, of all sequences."""


@dataclass(frozen=True, slots=True)
class Command:
    operation: Operation
    sequence: int = 0
    first: int = 0
    end: int = -1
    target: int = 0


@dataclass(frozen=True, slots=True)
class Hello:
    """The first frame of a ring's life, passed on by each stage that agrees; each adds its layers' count."""

    shape: Shape
    version: int = VERSION
    layers: tuple[int, ...] = ()
    """Of the stages that it has passed, in order."""


@dataclass(frozen=True, slots=True, eq=False)
class Step:
    """Rows of any sequences. A step without rows carries commands, or measures a lap."""

    number: int
    """Drawn by the head, ascending."""
    commands: tuple[Command, ...]
    positions: npt.NDArray[np.int32]
    """(rows,)"""
    sequences: npt.NDArray[np.int32]
    """(rows,)"""
    hidden: npt.NDArray[np.float32] | npt.NDArray[np.float16]
    """(rows, width); its type is the one it travels in."""
    microseconds: tuple[int, ...] = ()
    """What each stage that it has passed took to compute it."""


@dataclass(frozen=True, slots=True)
class Broken:
    """The last frame of a ring: a stage cannot go on. Passed on, so that the head hears why."""

    reason: str


Frame = Hello | Step | Broken


_LENGTH = struct.Struct("<I")
_HELLO = struct.Struct("<B3xHHIIII")
"""kind, version, count of stages passed, then the shape; the layers of each stage follow as u32."""
_STEP = struct.Struct("<BBHIIQ")
"""kind, type of hidden, count of stages passed, commands, rows, number; then commands of five i32, positions
and sequences as i32, microseconds as u32, hidden. Everything lies on a multiple of four bytes."""

_KIND_HELLO, _KIND_STEP, _KIND_BROKEN = 1, 2, 3
_HIDDEN_TYPES: tuple[Any, ...] = (np.dtype("<f4"), np.dtype("<f2"))
_INTEGER: np.dtype[Any] = np.dtype("<i4")
_UNSIGNED: np.dtype[Any] = np.dtype("<u4")

LENGTH_BYTES = _LENGTH.size

MICROSECONDS_MAX = 2**32 - 1


def encode(frame: Frame) -> bytes:
    """With its length in front."""
    match frame:
        case Hello():
            parts = _hello_parts(frame)
        case Step():
            parts = _step_parts(frame)
        case Broken():
            parts = [bytes([_KIND_BROKEN]), printable(frame.reason)[:REASON_CHARACTERS_MAX].encode()]
    return b"".join([_LENGTH.pack(sum(len(part) for part in parts)), *parts])


def _hello_parts(frame: Hello) -> list[bytes]:
    shape = frame.shape
    head = _HELLO.pack(
        _KIND_HELLO,
        frame.version,
        len(frame.layers),
        shape.width,
        shape.batch,
        shape.sequences,
        shape.context,
    )
    return [head, np.asarray(frame.layers, _UNSIGNED).tobytes()]


def _step_parts(frame: Step) -> list[bytes]:
    head = _STEP.pack(
        _KIND_STEP,
        _HIDDEN_TYPES.index(frame.hidden.dtype),
        len(frame.microseconds),
        len(frame.commands),
        len(frame.positions),
        frame.number,
    )
    fields = [(c.operation, c.sequence, c.first, c.end, c.target) for c in frame.commands]
    return [
        head,
        np.asarray(fields, _INTEGER).tobytes(),
        np.asarray(frame.positions, _INTEGER).tobytes(),
        np.asarray(frame.sequences, _INTEGER).tobytes(),
        np.asarray(frame.microseconds, _UNSIGNED).tobytes(),
        frame.hidden.tobytes(),
    ]


def body_length(length: bytes | bytearray, shape: Shape) -> int:
    """Of the frame that follows these LENGTH_BYTES. Raises FrameError before anybody takes memory for it."""
    count: int = _LENGTH.unpack(length)[0]
    if not 0 < count <= shape.frame_bytes_max:
        raise FrameError(f"a frame of {count} bytes; {shape.frame_bytes_max} are the most here")
    return count


def decode(body: bytes | bytearray | memoryview, shape: Shape) -> Frame:
    """A frame without its length. Its arrays are views of `body`, which nobody may change afterwards.

    Raises FrameError for all that does not fit the shape, NaN and infinity included. A Hello of another shape
    is a frame that does not fit.
    """
    if not 0 < len(body) <= shape.frame_bytes_max:
        raise FrameError(f"a frame of {len(body)} bytes")
    kind = body[0]
    if kind == _KIND_HELLO:
        return _decode_hello(body, shape)
    if kind == _KIND_STEP:
        return _decode_step(body, shape)
    if kind == _KIND_BROKEN:
        return _decode_broken(body)
    raise FrameError(f"a frame of unknown kind {kind}")


def _decode_hello(body: bytes | bytearray | memoryview, shape: Shape) -> Hello:
    if len(body) < _HELLO.size:
        raise FrameError("a hello that is cut off")
    _, version, count, *measures = _HELLO.unpack_from(body)
    if version != VERSION:
        raise FrameError(
            f"it speaks version {version} of the ring, this node {VERSION}: update the older one"
        )
    if (theirs := Shape(*measures)) != shape:
        raise FrameError(f"it is made for {theirs}, this ring for {shape}")
    if count > STAGES_MAX or len(body) != _HELLO.size + 4 * count:
        raise FrameError("a hello of another length than it says")
    layers = np.frombuffer(body, _UNSIGNED, count, _HELLO.size)
    return Hello(shape=shape, version=version, layers=tuple(layers.tolist()))


def _decode_step(body: bytes | bytearray | memoryview, shape: Shape) -> Step:
    if len(body) < _STEP.size:
        raise FrameError("a step that is cut off")
    _, kind, stages, commands, rows, number = _STEP.unpack_from(body)
    if kind >= len(_HIDDEN_TYPES):
        raise FrameError(f"hidden states of unknown type {kind}")
    if stages > STAGES_MAX or commands > COMMANDS_MAX or rows > shape.batch:
        raise FrameError(f"a step of {rows} rows and {commands} commands after {stages} stages")
    hidden_type: np.dtype[Any] = _HIDDEN_TYPES[kind]
    fields = _Fields(body, _STEP.size)
    if len(body) != fields.end_after(20 * commands + (8 + hidden_type.itemsize * shape.width) * rows, stages):
        raise FrameError("a step of another length than it says")
    step = Step(
        number=number,
        commands=tuple(map(_command, fields.take(_INTEGER, 5 * commands).reshape(-1, 5).tolist())),
        positions=fields.take(_INTEGER, rows),
        sequences=fields.take(_INTEGER, rows),
        microseconds=tuple(fields.take(_UNSIGNED, stages).tolist()),
        hidden=fields.take(hidden_type, rows * shape.width).reshape(rows, shape.width),
    )
    _check_step(step, shape)
    return step


def _command(fields: list[int]) -> Command:
    operation, sequence, first, end, target = fields
    try:
        return Command(Operation(operation), sequence, first, end, target)
    except ValueError:
        raise FrameError(f"a command of unknown kind {operation}") from None


def _check_step(step: Step, shape: Shape) -> None:
    for command in step.commands:
        _check_command(command, shape)
    if not _are_below(step.sequences, shape.sequences):
        raise FrameError(f"a row of a sequence beyond the {shape.sequences} of this ring")
    if not _are_below(step.positions, shape.context):
        raise FrameError(f"a row at a position beyond the context of {shape.context}")
    if not np.isfinite(step.hidden).all():
        raise FrameError("hidden states that are no finite numbers")


def _check_command(command: Command, shape: Shape) -> None:
    known = 0 <= command.sequence < shape.sequences and 0 <= command.target < shape.sequences
    ordered = 0 <= command.first <= shape.context and (
        command.end == -1 or command.first <= command.end <= shape.context
    )
    if not known or not ordered:
        raise FrameError(f"a command out of bounds: {command}")


def _are_below(values: npt.NDArray[np.int32], bound: int) -> bool:
    """And not below 0: read without its sign such a number is above any bound."""
    return len(values) == 0 or int(values.view(np.uint32).max()) < bound


def _decode_broken(body: bytes | bytearray | memoryview) -> Broken:
    if len(body) > 1 + 4 * REASON_CHARACTERS_MAX:
        raise FrameError("a reason that is too long")
    try:
        reason = bytes(body[1:]).decode()
    except UnicodeDecodeError:
        raise FrameError("a reason that is no text") from None
    if len(reason) > REASON_CHARACTERS_MAX or not reason.isprintable():
        raise FrameError("a reason that is too long, or no text for people")
    return Broken(reason)


def printable(text: str) -> str:
    """Nothing in it moves a cursor: reasons end up on somebody's screen."""
    return "".join(character if character.isprintable() else " " for character in text)


class _Fields:
    """Arrays that follow each other in a body."""

    def __init__(self, body: bytes | bytearray | memoryview, offset: int) -> None:
        self._body = body
        self._offset = offset

    def end_after(self, count: int, stages: int) -> int:
        return self._offset + count + 4 * stages

    def take(self, kind: np.dtype[Any], count: int) -> npt.NDArray[Any]:
        taken = np.frombuffer(self._body, kind, count, self._offset)
        self._offset += count * kind.itemsize
        return taken
