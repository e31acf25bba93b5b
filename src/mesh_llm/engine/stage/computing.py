"""A step of the ring through the layers of one stage. Counterpart: `child.py` brings steps and takes them on.

What is wrong with a step is told by FrameError, what this stage cannot do by StageBroken; either ends the
session, and `begin` makes all good again.
"""

import time
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from mesh_llm.core.errors import EngineFailed
from mesh_llm.core.stages import STAGES_MAX
from mesh_llm.engine.llama.context import Context, NoRoom
from mesh_llm.engine.ring.frames import (
    MICROSECONDS_MAX,
    Command,
    FrameError,
    Hello,
    Operation,
    Shape,
    Step,
)
from mesh_llm.engine.stage.order import Order


class StageBroken(Exception):
    """This stage cannot go on with this session; says why."""


class Stage:
    def __init__(self, context: Context) -> None:
        """`context` watches the residual stream of its last layer."""
        settings = context.settings
        self.shape = Shape(context.model.width, settings.batch, settings.sequences, settings.context)
        self._context = context
        self._order = Order()

    def begin(self) -> None:
        """A new session: nothing is held of any sequence."""
        self._context.clear()
        self._order = Order()

    def greet(self, hello: Hello) -> Hello:
        """With this stage's layers added. Raises FrameError where there are too many stages."""
        if len(hello.layers) >= STAGES_MAX:
            raise FrameError(f"a ring of more than {STAGES_MAX} stages")
        return replace(hello, layers=(*hello.layers, self._context.model.layers))

    def compute(self, step: Step) -> Step:
        """With this stage's output in place of its input, in the type that came in. Raises FrameError,
        StageBroken. Its rows are overwritten by the next step."""
        began = time.perf_counter_ns()
        self._order.begin(step.number)
        for command in step.commands:
            self._obey(command)
        self._order.rows(step.sequences.tolist(), step.positions.tolist())
        hidden = self._decoded(step) if len(step.positions) else step.hidden
        took = min(MICROSECONDS_MAX, (time.perf_counter_ns() - began) // 1000)
        return replace(step, hidden=hidden, microseconds=(*step.microseconds, took))

    def _decoded(self, step: Step) -> npt.NDArray[np.float32] | npt.NDArray[np.float16]:
        try:
            self._context.decode(step.positions, step.sequences, hidden=_as_floats(step.hidden))
            rows = self._context.hidden(len(step.positions))
        except (EngineFailed, NoRoom) as error:
            raise StageBroken(str(error)) from error
        if not np.isfinite(rows).all():
            raise StageBroken("its layers gave numbers that are not finite: is its file whole?")
        return rows if step.hidden.dtype == np.float32 else _as_halves(rows)

    def _obey(self, command: Command) -> None:
        cut = self._order.command(command)
        match command.operation:
            case Operation.CLEAR:
                self._context.clear()
            case Operation.DROP:
                self._context.drop(command.sequence, command.first, command.end)
            case Operation.COPY:
                self._context.copy(command.sequence, command.target, command.first, command.end)
        for sequence, position in cut.items():
            if not self._context.can_go_on_at(sequence, position):
                raise StageBroken(
                    f"sequence {sequence} cannot go on at position {position}: sliding windows have "
                    "forgotten what comes before it; drop it whole"
                )


def _as_floats(hidden: npt.NDArray[np.float32] | npt.NDArray[np.float16]) -> npt.NDArray[np.float32]:
    return hidden.astype(np.float32, copy=False)


def _as_halves(rows: npt.NDArray[np.float32]) -> npt.NDArray[np.float16]:
    with np.errstate(over="ignore"):
        halves = rows.astype(np.float16)
    if not np.isfinite(halves).all():
        raise StageBroken("its hidden states are too large for f16: let them travel with --activations f32")
    return halves
