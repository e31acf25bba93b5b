"""Answers with thoughts, text, and calls that begin with marks of their own."""

from abc import abstractmethod
from collections.abc import Sequence

from mesh_llm.engine.head.parsing.answer_parser import FormatParser
from mesh_llm.engine.head.parsing.tape import Malformed, Reading
from mesh_llm.engine.head.parsing.telling import Call
from mesh_llm.engine.head.parsing.thinking import read_thoughts


class CallsParser(FormatParser):
    begins: Sequence[str] = ()
    """Marks with which calls begin."""
    thoughts_end_with_calls = False
    ids_come_last = False
    is_loose = False
    """Any white space may stand around thoughts."""

    def read(self) -> Reading[None]:
        tape, telling = self.tape, self.telling
        begins = self.begins if self.tools else ()
        ends = begins if self.thoughts_end_with_calls else ()
        may_think = yield from read_thoughts(self, ends, is_loose=self.is_loose)
        if self.tools and not may_think and not self.form.content_is_open:
            yield from tape.space()
        while mark := (yield from tape.until(begins, telling.content)):
            yield from self.read_calls(mark)

    @abstractmethod
    def read_calls(self, mark: str) -> Reading[None]:
        """All calls of one section; `mark` comes first."""

    def read_series(self, mark: str, end: str, between: str = "") -> Reading[None]:
        """Calls after `mark` until `end`, each read by `read_call`."""
        lead = mark
        while (yield from self.read_one(lead)):
            yield from self.tape.space()
            if end and (yield from self.tape.accept(end)):
                yield from self.tape.space()
                return
            lead = between
            if between and not (yield from self.tape.sees(between)):
                return

    def read_one(self, lead: str) -> Reading[bool]:
        call = self.call(is_sure=not self.ids_come_last)
        return (yield from call.read(self._read_led(call, lead)))

    def _read_led(self, call: Call, lead: str) -> Reading[None]:
        yield from self.tape.expect(lead)
        yield from self.tape.space()
        yield from self.read_call(call)

    @abstractmethod
    def read_call(self, call: Call) -> Reading[None]:
        """One of them. Raises Malformed, CutOff."""

    def begin(self, call: Call, name: str) -> None:
        """Raises Malformed for what is no tool."""
        if name not in self.tools:
            raise Malformed
        call.begin(name)
