"""What a parser tells, in order, and the calls of tools in it: one that goes wrong becomes text again."""

from collections.abc import Callable

from mesh_llm.engine.head.parsing.deltas import CallArguments, CallBegin, Content, Delta, Reasoning
from mesh_llm.engine.head.parsing.tape import CutOff, Malformed, Reading, Tape


class Telling:
    def __init__(self, identify: Callable[[], str]) -> None:
        """`identify` draws the id of a call."""
        self._identify = identify
        self._deltas: list[Delta] = []
        self._calls = 0
        self._blank = ""
        """Reasoning so far, while it is nothing but white space: alone it is none (chat-peg-parser.cpp)."""
        self._has_reasoned = False

    def content(self, text: str) -> None:
        if text:
            self._deltas.append(Content(text))

    def reasoning(self, text: str) -> None:
        if not self._has_reasoned and not text.strip(" \n\r\t"):
            self._blank += text
            return
        self._has_reasoned = True
        text, self._blank = self._blank + text, ""
        if text:
            self._deltas.append(Reasoning(text))

    def number(self) -> int:
        """Of a new call."""
        self._calls += 1
        return self._calls - 1

    def identify(self) -> str:
        return self._identify()

    def add(self, delta: Delta) -> None:
        self._deltas.append(delta)

    def take(self) -> list[Delta]:
        deltas, self._deltas = self._deltas, []
        return deltas


class Call:
    """One that is being read. It is told as it comes where its form is sure, else when it is complete."""

    def __init__(self, tape: Tape, telling: Telling, *, is_sure: bool) -> None:
        self._tape = tape
        self._telling = telling
        self._is_sure = is_sure
        self._number: int | None = None
        self._name = ""
        self._id = ""
        self._arguments = ""
        """Not told yet."""
        self._has_arguments = False

    def begin(self, name: str) -> None:
        self._name = name
        if self._is_sure:
            self.tell()

    def identify(self, identity: str) -> None:
        """By the model's own id. Told with the name: later ones are only for calls that are not sure."""
        self._id = identity

    def arguments(self, text: str) -> None:
        self._has_arguments = True
        self._arguments += text
        if self._is_sure:
            self.tell()

    def _begin_arguments(self) -> None:
        """A call that is cut off before them has their beginning, as llama-server has it."""
        if not self._has_arguments:
            self._arguments = "{"

    def tell(self) -> None:
        if self._number is None:
            self._number = self._telling.number()
            identity = self._id or self._telling.identify()
            self._telling.add(CallBegin(self._number, identity, self._name))
        if self._arguments:
            self._telling.add(CallArguments(self._number, self._arguments))
            self._arguments = ""
        self._tape.hold()

    def read(self, reading: Reading[None]) -> Reading[bool]:
        """Whether it is one: what is not, or has no name when the text ends, is told as text."""
        self._tape.hold()
        try:
            yield from reading
        except Malformed:
            self._telling.content(self._tape.held())
            return False
        except CutOff:
            if self._name:
                self._begin_arguments()
                self.tell()
                self._tape.held()
            else:
                self._telling.content(self._tape.held())
            return False
        self.tell()
        self._tape.held()
        return True
