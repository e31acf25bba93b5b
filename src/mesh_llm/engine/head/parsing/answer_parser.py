"""What all parsers of answers are: fed with any cuts of a text, they tell the same."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from mesh_llm.engine.head.families import Thinking
from mesh_llm.engine.head.parsing.deltas import Delta
from mesh_llm.engine.head.parsing.tape import Reading, Tape
from mesh_llm.engine.head.parsing.telling import Call, Telling
from mesh_llm.engine.head.parsing.tools import Tool, by_name


class AnswerParser(Protocol):
    def feed(self, text: str) -> list[Delta]:
        """What is known now that `text` has come."""
        ...

    def finish(self) -> list[Delta]:
        """The rest. A call that is cut off stays one if its name was known."""
        ...


@dataclass(frozen=True, slots=True)
class Form:
    """What is known of an answer before it comes."""

    identify: Callable[[], str]
    """Draws the id of a call."""
    tools: Sequence[Tool] = ()
    """That may be called; without any, calls are text, as llama-server has it."""
    thinking: Thinking | None = None
    """With the white space that the template writes around the marks. Where `begin` is empty, answers begin
    with thoughts; where `end` is, there are none."""
    thoughts_are_content: bool = False
    """They are told with their marks, as `reasoning_format: none` asks."""
    thinking_is_open: bool = False
    """The prompt ends within thoughts."""
    opening: str = ""
    """What of the prompt belongs to the answer: from the mark of thoughts on, open or closed. Empty: that
    mark alone if `thinking_is_open`."""
    content_is_open: bool = False
    """The prompt ends within content: a message that the client began goes on."""
    calls_are_sure: bool = False
    """A grammar sees to it that calls are well formed: they are told while they come, else when complete."""


class FormatParser(ABC):
    """Of a family's format; subclasses read it."""

    def __init__(self, form: Form) -> None:
        self.form = form
        self.tape = Tape()
        self.tape.add(form.opening or _open_mark(form))
        self.telling = Telling(form.identify)
        self.tools: Mapping[str, Tool] = by_name(form.tools)
        self._reading: Reading[None] | None = self.read()

    @abstractmethod
    def read(self) -> Reading[None]:
        """The whole answer."""

    @property
    def thinking(self) -> Thinking | None:
        """Where thoughts are looked for."""
        form = self.form
        if form.thinking is None or form.thoughts_are_content or form.content_is_open:
            return None
        return form.thinking if form.thinking.end.strip() else None

    def call(self, *, is_sure: bool = True) -> Call:
        """A new one; `is_sure` unless its id comes last."""
        return Call(self.tape, self.telling, is_sure=self.form.calls_are_sure and is_sure)

    def feed(self, text: str) -> list[Delta]:
        self.tape.add(text)
        return self._go_on()

    def finish(self) -> list[Delta]:
        self.tape.end()
        return self._go_on()

    def _go_on(self) -> list[Delta]:
        if self._reading is not None:
            try:
                next(self._reading)
            except StopIteration:
                self._reading = None
        return self.telling.take()


def _open_mark(form: Form) -> str:
    return form.thinking.begin if form.thinking is not None and form.thinking_is_open else ""
