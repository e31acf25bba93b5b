"""`[TOOL_CALLS]` before a list of JSON objects, which have ids of their own: up to Mistral Small 3.1."""

from mesh_llm.engine.head.parsing.call_objects import read_call_object
from mesh_llm.engine.head.parsing.calls_parser import CallsParser
from mesh_llm.engine.head.parsing.tape import Reading
from mesh_llm.engine.head.parsing.telling import Call

BEGIN = "[TOOL_CALLS]"


class MistralParser(CallsParser):
    begins = (BEGIN,)
    ids_come_last = True

    def read_calls(self, mark: str) -> Reading[None]:
        yield from self.read_series(mark, "]", between=",")

    def read_call(self, call: Call) -> Reading[None]:
        yield from self.tape.accept("[")
        yield from self.tape.space()
        yield from read_call_object(self, call)
