"""What goes round the ring of a split model: frames as bytes, checked before anything is believed.

The head sends a step to the first stage, each stage sends it on with its own output in place of its input,
and the last remote stage sends it home. Counterparts: `sockets.py` moves the bytes; `engine/stage/child.py`
and `engine/head/pipeline.py` act on frames. A frame is `u32 length | u8 kind | body`, little-endian; the
length counts kind and body, and is checked against `Shape.frame_bytes_max` before memory is taken.
"""

from dataclasses import dataclass
from enum import IntEnum

import numpy as np
import numpy.typing as npt

VERSION = 1

COMMANDS_MAX = 4096
"""In one step: several for each sequence."""

REASON_CHARACTERS_MAX = 1000

STAGES_MAX = 64
"""More would never be planned: each costs a delay."""


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


def encode(frame: Frame) -> bytes:
    """With its length in front."""
    raise NotImplementedError


def decode(body: bytes | memoryview, shape: Shape) -> Frame:
    """A frame without its length. Raises FrameError for all that does not fit the shape, NaN and infinity
    included."""
    raise NotImplementedError
