"""A ring's first laps: does everybody agree, how long is a lap, what do hidden states cost on the way. Pure.

Hello, a step without rows, a step of a whole batch in f32, and a step without rows that clears every cache.
Counterparts: `pipeline.py` sends what this asks for; `engine/stage` answers.
"""

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum

import numpy as np
import numpy.typing as npt

from mesh_llm.core.stages import Activations
from mesh_llm.engine.head.settings import ActivationsChoice
from mesh_llm.engine.ring.frames import (
    Broken,
    Command,
    Frame,
    FrameError,
    Hello,
    Operation,
    Shape,
    Step,
)

COSTLY_SHARE = 0.1
"""Of a lap: f16 halves what is on the way but is not exact, so it must be worth it."""


class Stage(Enum):
    HELLO = 1
    LAP = 2
    BATCH = 3
    CLEAR = 4


@dataclass(frozen=True, slots=True)
class Opened:
    layers: tuple[int, ...]
    activations: Activations
    lap_seconds: float
    stage_microseconds: tuple[int, ...]
    steps: int
    """Numbers below are used up."""


def choose_activations(choice: ActivationsChoice, transfer_seconds: float, lap_seconds: float) -> Activations:
    """`transfer_seconds`: what the links add to a lap of a whole batch in f32; `lap_seconds`: all of that
    lap, the head's share included."""
    if choice is not None:
        return choice
    return "f16" if transfer_seconds > COSTLY_SHARE * lap_seconds else "f32"


class Opening:
    def __init__(
        self,
        shape: Shape,
        stages: int,
        choice: ActivationsChoice,
        batch: npt.NDArray[np.float32],
        head_seconds: float,
        send: Callable[[Frame], None],
    ) -> None:
        """`batch` (rows, width) are hidden states of a whole batch, `head_seconds` what the head needs for
        such; `send` must not wait for an answer."""
        self._shape = shape
        self._stages = stages
        self._choice: ActivationsChoice = choice
        self._batch = batch
        self._head_seconds = head_seconds
        self._send = send
        self._stage = Stage.HELLO
        self._sent_at = 0.0
        self._steps = 0
        self._layers: tuple[int, ...] = ()
        self._laps: list[float] = []
        self._batch_seconds = 0.0
        self._microseconds: tuple[int, ...] = ()

    def begin(self) -> None:
        self._send(Hello(self._shape))

    def take(self, frame: Frame, now: float) -> Opened | None:
        """`now` in seconds, of any clock. None: more laps are under way. Raises FrameError."""
        if isinstance(frame, Broken):
            raise FrameError(frame.reason)
        if isinstance(frame, Hello):
            self._take_hello(frame)
        else:
            self._take_step(frame, now - self._sent_at)
        if self._stage is Stage.CLEAR:
            return self._opened()
        self._stage = Stage(self._stage.value + 1)
        self._send_step(now)
        return None

    def _take_hello(self, hello: Hello) -> None:
        if self._stage is not Stage.HELLO or hello.shape != self._shape:
            raise FrameError("the ring brought home a greeting that the head did not send")
        if len(hello.layers) != self._stages:
            raise FrameError(f"the ring has {len(hello.layers)} stages, the plan {self._stages}")
        self._layers = hello.layers

    def _take_step(self, step: Step, seconds: float) -> None:
        rows = len(self._batch) if self._stage is Stage.BATCH else 0
        if self._stage is Stage.HELLO or step.number != self._steps - 1 or len(step.positions) != rows:
            raise FrameError("the ring brought home a step that the head did not send")
        if len(step.microseconds) != self._stages:
            raise FrameError(f"{len(step.microseconds)} stages have worked on a step, not {self._stages}")
        if self._stage is Stage.BATCH:
            self._batch_seconds, self._microseconds = seconds, step.microseconds
        else:
            self._laps.append(seconds)

    def _send_step(self, now: float) -> None:
        rows = len(self._batch) if self._stage is Stage.BATCH else 0
        commands = (Command(Operation.CLEAR),) if self._stage is Stage.CLEAR else ()
        step = Step(
            number=self._steps,
            commands=commands,
            positions=np.arange(rows, dtype=np.int32),
            sequences=np.zeros(rows, np.int32),
            hidden=self._batch[:rows],
        )
        self._steps += 1
        self._sent_at = now
        self._send(step)

    def _opened(self) -> Opened:
        lap = min(self._laps)
        transfer = self._batch_seconds - lap - sum(self._microseconds) / 1e6
        activations = choose_activations(self._choice, transfer, self._batch_seconds + self._head_seconds)
        return Opened(self._layers, activations, lap, self._microseconds, self._steps)
