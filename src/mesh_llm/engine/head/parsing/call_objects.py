"""Calls that are JSON objects with a name and arguments."""

from mesh_llm.engine.head.parsing.calls_parser import CallsParser
from mesh_llm.engine.head.parsing.json_reading import read_object, read_text, read_value
from mesh_llm.engine.head.parsing.tape import Malformed, Reading
from mesh_llm.engine.head.parsing.telling import Call

ARGUMENTS = ("arguments", "parameters")


class _CallObject:
    """One that is being read: its keys in any order."""

    def __init__(self, parser: CallsParser, call: Call) -> None:
        self._parser = parser
        self._call = call
        self._early: list[str] = []
        """Arguments before the name."""
        self._name = ""
        self.has_arguments = False

    def read(self) -> Reading[None]:
        tape = self._parser.tape
        yield from tape.expect("{")
        yield from tape.space()
        while True:
            key = yield from read_text(tape)
            yield from tape.space()
            yield from tape.expect(":")
            yield from tape.space()
            yield from self._read_field(key)
            yield from tape.space()
            if (yield from tape.accept("}")):
                break
            yield from tape.expect(",")
            yield from tape.space()
        if not self._name or not self.has_arguments:
            raise Malformed

    def _read_field(self, key: str) -> Reading[None]:
        tape = self._parser.tape
        if key == "name" and not self._name:
            self._name = yield from read_text(tape)
            self._parser.begin(self._call, self._name)
            if self._early:
                self._call.arguments("".join(self._early))
        elif key in ARGUMENTS and not self.has_arguments:
            self.has_arguments = True
            yield from read_object(tape, self._call.arguments if self._name else self._early.append)
        else:
            yield from self._read_other(key)

    def _read_other(self, key: str) -> Reading[None]:
        pieces: list[str] = []
        yield from read_value(self._parser.tape, pieces.append)
        if key == "id":
            self._call.identify("".join(pieces).strip('"'))


def read_call_object(parser: CallsParser, call: Call) -> Reading[None]:
    """Raises Malformed, CutOff."""
    yield from _CallObject(parser, call).read()
