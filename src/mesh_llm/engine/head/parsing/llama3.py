"""JSON without any mark, the whole answer or its end: Llama 3.1 to 4."""

from mesh_llm.engine.head.parsing.call_objects import read_call_object
from mesh_llm.engine.head.parsing.calls_parser import CallsParser
from mesh_llm.engine.head.parsing.tape import Reading
from mesh_llm.engine.head.parsing.telling import Call


class Llama3Parser(CallsParser):
    begins = ("{",)

    def read_calls(self, mark: str) -> Reading[None]:
        yield from self.read_series("", "", between=",")

    def read_call(self, call: Call) -> Reading[None]:
        yield from read_call_object(self, call)
