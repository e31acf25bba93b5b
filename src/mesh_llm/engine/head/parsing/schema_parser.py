"""JSON of a schema, out of what a model writes around it: white space and a fence.

Counterpart: `schema_grammar.py`, which lets it stand there; llama-server leaves it out of the content too.
"""

from mesh_llm.engine.head.families import Thinking
from mesh_llm.engine.head.parsing.answer_parser import AnswerParser
from mesh_llm.engine.head.parsing.deltas import Content, Delta
from mesh_llm.engine.head.parsing.json_reading import read_value
from mesh_llm.engine.head.parsing.schema_grammar import FENCE, FENCE_END
from mesh_llm.engine.head.parsing.tape import CutOff, Malformed, Reading, Tape


class SchemaParser:
    """An AnswerParser, of the content that another one tells. What is no JSON stays as it is."""

    def __init__(self, inner: AnswerParser, thinking: Thinking | None = None) -> None:
        """`thinking`: of thoughts that come as content."""
        self._inner = inner
        self._thinking = thinking
        self._tape = Tape()
        self._told: list[Delta] = []
        self._reading: Reading[None] | None = self._read()

    def feed(self, text: str) -> list[Delta]:
        return self._read_content_of(self._inner.feed(text))

    def finish(self) -> list[Delta]:
        deltas = self._read_content_of(self._inner.finish())
        self._tape.end()
        self._go_on()
        return deltas + self._take()

    def _read_content_of(self, deltas: list[Delta]) -> list[Delta]:
        for delta in deltas:
            if isinstance(delta, Content):
                self._tape.add(delta.text)
                self._go_on()
            else:
                self._told.append(delta)
        return self._take()

    def _go_on(self) -> None:
        if self._reading is not None:
            try:
                next(self._reading)
            except StopIteration:
                self._reading = None

    def _take(self) -> list[Delta]:
        told, self._told = self._told, []
        return told

    def _tell(self, text: str) -> None:
        if text:
            last = self._told[-1] if self._told else None
            if isinstance(last, Content):
                self._told[-1] = Content(last.text + text)
            else:
                self._told.append(Content(text))
        self._tape.hold()

    def _read(self) -> Reading[None]:
        tape = self._tape
        if self._thinking is not None:
            yield from self._read_thoughts(self._thinking)
        yield from tape.space()
        if (yield from tape.accept(FENCE)):
            yield from tape.space()
        tape.hold()
        try:
            yield from read_value(tape, self._tell)
        except (Malformed, CutOff):
            self._tell(tape.held())
        else:
            yield from self._read_end()
        yield from tape.until((), self._tell)

    def _read_end(self) -> Reading[None]:
        """What comes of the fence's end: an answer may be cut off within it."""
        yield from self._tape.space()
        for mark in FENCE_END:
            yield from self._tape.accept(mark)

    def _read_thoughts(self, thinking: Thinking) -> Reading[None]:
        begin, end = thinking.begin.strip(), thinking.end.strip()
        if end and (not begin or (yield from self._tape.sees(begin))):
            yield from self._tape.until((end,), self._tell)
            if (yield from self._tape.accept(end)):
                self._tell(end)
