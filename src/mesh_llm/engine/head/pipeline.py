"""Drives the ring: questions into steps, steps home into tokens. One thread, fed through one queue.

Everything on the way from a step that comes home to the next one that leaves happens here without another
thread's help: last layers, sampling, scheduling, sending. `scheduler.py` decides, this acts; `app.py` asks,
and hears through `tell`.
"""

import queue
import socket
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from time import perf_counter

import numpy as np
import numpy.typing as npt

from mesh_llm.core.errors import EngineFailed
from mesh_llm.core.stages import Activations
from mesh_llm.engine.head.answers import Answers
from mesh_llm.engine.head.generation import News, Question
from mesh_llm.engine.head.last_layers import LastLayers
from mesh_llm.engine.head.opening import Opened, Opening
from mesh_llm.engine.head.ring_door import Lost, RingLink
from mesh_llm.engine.head.ring_state import RingDown, RingState
from mesh_llm.engine.head.ring_state import RingUp as RingIsUp
from mesh_llm.engine.head.scheduler import Scheduler
from mesh_llm.engine.head.settings import HeadSettings
from mesh_llm.engine.head.steps import (
    NOT_YET_UP,
    Cancel,
    Capacity,
    Effect,
    Event,
    Failed,
    Finished,
    Home,
    RingLost,
    RingUp,
    Sampled,
    Send,
    Submit,
)
from mesh_llm.engine.llama.context import NoRoom
from mesh_llm.engine.ring.frames import Broken, Frame, FrameError, Shape, Step

REPLACED = "a new ring took its place"


@dataclass(frozen=True, slots=True)
class Connected:
    connection: socket.socket


@dataclass(frozen=True, slots=True)
class Heard:
    link: RingLink
    what: Frame | Lost


@dataclass(frozen=True, slots=True)
class ComputeAlone:
    """A step of a head that has no ring is at home at once, after what has come in before it."""


@dataclass(frozen=True, slots=True, eq=False)
class Flying:
    """A step as it was sent: what comes home must be of the same rows."""

    send: Send
    number: int
    positions: npt.NDArray[np.int32]
    sequences: npt.NDArray[np.int32]


Message = Question | Cancel | Connected | Heard | ComputeAlone


class Pipeline:
    def __init__(
        self,
        layers: LastLayers,
        settings: HeadSettings,
        tell: Callable[[Sequence[News]], None],
        on_ring: Callable[[RingState], None],
    ) -> None:
        """`tell` and `on_ring` are called from the pipeline's thread and must not wait."""
        self._layers = layers
        self._settings = settings
        self._tell = tell
        self._on_ring = on_ring
        self._shape = Shape(layers.width, settings.batch, settings.sequences, settings.context_length)
        self._scheduler = Scheduler(
            Capacity(
                settings.context_length,
                settings.sequences,
                settings.batch,
                settings.stages,
                forgets=layers.forgets,
            )
        )
        self._answers = Answers(layers)
        self._inbox: queue.SimpleQueue[Message] = queue.SimpleQueue()
        self._link: RingLink | None = None
        self._opening: Opening | None = None
        self._flying: deque[Flying] = deque()
        self._number = 0
        self._activations: Activations = "f32"
        self._batch_rows = min(settings.batch, settings.context_length)
        self._head_seconds = 0.0
        self.ring: RingState = RingDown(NOT_YET_UP)
        """Read from any thread."""

    def ask(self, question: Question) -> None:
        """From any thread, as all that is public here but `run`."""
        self._inbox.put(question)

    def cancel(self, request: int) -> None:
        self._inbox.put(Cancel(request))

    def connect(self, connection: socket.socket) -> None:
        """A new life of the ring; it ends the one before."""
        self._inbox.put(Connected(connection))

    def run(self) -> None:
        """In a thread of its own, for ever."""
        self._head_seconds = self._layers.warm_up(self._batch_rows)
        if self._settings.stages == 0:
            self._go_up(RingIsUp((), "f32", 0.0, (), round(1e6 * self._head_seconds)))
        while True:
            self._take(self._inbox.get())
            news = self._answers.take_news()
            if news:
                self._tell(news)

    def _take(self, message: Message) -> None:
        match message:
            case Question():
                self._answers.begin(message, perf_counter())
                self._handle(Submit(message.request, message.tokens, message.tokens_max, message.may_reuse))
            case Cancel(request):
                self._answers.forget(request)
                self._handle(message)
            case Connected(connection):
                self._open(connection)
            case Heard(link, what):
                if link is self._link:
                    self._hear(what)
                link.taken()
            case ComputeAlone():
                self._compute_alone()

    def _open(self, connection: socket.socket) -> None:
        self._go_down(REPLACED)
        self._link = link = RingLink(
            connection, self._shape, lambda link, what: self._inbox.put(Heard(link, what))
        )
        link.begin()
        self._opening = Opening(
            shape=self._shape,
            stages=self._settings.stages,
            choice=self._settings.activations,
            batch=self._layers.embed([row % self._layers.tokenizer.size for row in range(self._batch_rows)]),
            head_seconds=self._head_seconds,
            send=link.send,
        )
        self._opening.begin()

    def _hear(self, what: Frame | Lost) -> None:
        now = perf_counter()
        try:
            if isinstance(what, Lost):
                self._go_down(what.reason)
            elif self._opening is not None:
                opened = self._opening.take(what, now)
                if opened is not None:
                    self._finish_opening(opened)
            elif isinstance(what, Step):
                self._take_home(what)
            elif isinstance(what, Broken):
                raise FrameError(what.reason)
            else:
                raise FrameError("the ring brought home a greeting that the head did not send")
        except (FrameError, NoRoom, EngineFailed) as error:
            self._go_down(str(error))

    def _finish_opening(self, opened: Opened) -> None:
        self._opening = None
        self._number = opened.steps
        self._activations = opened.activations
        self._go_up(
            RingIsUp(
                opened.layers,
                opened.activations,
                opened.lap_seconds,
                opened.stage_microseconds,
                round(1e6 * self._head_seconds),
            )
        )

    def _go_up(self, state: RingIsUp) -> None:
        self._layers.clear()
        self.ring = state
        self._on_ring(state)
        self._handle(RingUp())

    def _go_down(self, reason: str) -> None:
        """Nothing where it is down already, but for a link that is on its way up."""
        was_down = isinstance(self.ring, RingDown)
        link, self._link, self._opening = self._link, None, None
        if link is not None:
            link.end()
        self._flying.clear()
        if was_down and link is None:
            return
        self.ring = RingDown(reason)
        self._on_ring(self.ring)
        self._handle(RingLost(reason))

    def _handle(self, event: Event) -> None:
        now = perf_counter()
        for effect in self._scheduler.handle(event):
            self._perform(effect, now)

    def _perform(self, effect: Effect, now: float) -> None:
        match effect:
            case Send():
                self._send(effect)
            case Finished():
                self._answers.finish(effect, now)
            case Failed(request, reason):
                self._answers.fail(request, reason)

    def _send(self, send: Send) -> None:
        positions = np.array([row.position for row in send.rows], np.int32)
        sequences = np.array([row.sequence for row in send.rows], np.int32)
        self._flying.append(Flying(send, self._number, positions, sequences))
        if self._link is None:
            self._inbox.put(ComputeAlone())
        else:
            hidden = self._layers.embed([row.token for row in send.rows])
            as_sent = hidden if self._activations == "f32" else hidden.astype(np.float16)
            self._link.send(Step(self._number, send.commands, positions, sequences, as_sent))
        self._number += 1

    def _take_home(self, step: Step) -> None:
        """Raises FrameError, NoRoom, EngineFailed."""
        flying = self._checked(step)
        self._layers.apply(flying.send.commands)
        hidden = np.asarray(step.hidden, np.float32)
        self._layers.compute_hidden(flying.positions, flying.sequences, hidden, _outputs(flying.send))
        self._sample()

    def _compute_alone(self) -> None:
        if not self._flying:
            return  # it was lost meanwhile
        flying = self._flying.popleft()
        tokens = [row.token for row in flying.send.rows]
        self._layers.apply(flying.send.commands)
        try:
            self._layers.compute_tokens(flying.positions, flying.sequences, tokens, _outputs(flying.send))
        except (NoRoom, EngineFailed) as error:
            state = self.ring
            self._handle(RingLost(str(error)))
            if isinstance(state, RingIsUp):
                self._go_up(state)
            return
        self._sample()

    def _checked(self, step: Step) -> Flying:
        """The step that this is; it must be the oldest on its way, as it was sent. Raises FrameError."""
        if not self._flying or step.number != self._flying[0].number:
            raise FrameError(f"step {step.number} came home out of turn")
        flying = self._flying.popleft()
        sent, home = (flying.positions, flying.sequences), (step.positions, step.sequences)
        is_same = all(one.tobytes() == other.tobytes() for one, other in zip(sent, home, strict=True))
        wanted = np.float32 if self._activations == "f32" else np.float16
        if not is_same or step.hidden.dtype != wanted or step.commands != flying.send.commands:
            raise FrameError(f"step {step.number} came home with other rows than it left with")
        if len(step.microseconds) != self._settings.stages:
            raise FrameError(f"step {step.number} was at {len(step.microseconds)} stages")
        return flying

    def _sample(self) -> None:
        sampled: dict[int, Sampled] = {
            request: self._answers.sample(row, request) for row, request in self._scheduler.wanted()
        }
        self._answers.mark_first_tokens(perf_counter())
        self._handle(Home(sampled))


def _outputs(send: Send) -> npt.NDArray[np.int8]:
    return np.array([row.sampled for row in send.rows], np.int8)
