"""`<tool_call>` around JSON: Hermes 2 and 3, Qwen 2.5, Qwen 3, SmolLM 3."""

from mesh_llm.engine.head.parsing.call_objects import read_call_object
from mesh_llm.engine.head.parsing.calls_parser import CallsParser
from mesh_llm.engine.head.parsing.tape import Reading
from mesh_llm.engine.head.parsing.telling import Call

BEGIN, END = "<tool_call>", "</tool_call>"


class HermesParser(CallsParser):
    begins = (BEGIN,)

    def read_calls(self, mark: str) -> Reading[None]:
        if (yield from self.read_one(mark)):
            yield from self.tape.space()

    def read_call(self, call: Call) -> Reading[None]:
        yield from read_call_object(self, call)
        yield from self.tape.space()
        yield from self.tape.expect(END)
