"""`[TOOL_CALLS]` before each name, `[ARGS]` after it: Mistral Small 3.2, Devstral, Magistral, Ministral 3."""

import re

from mesh_llm.engine.head.parsing.calls_parser import CallsParser
from mesh_llm.engine.head.parsing.json_reading import read_object
from mesh_llm.engine.head.parsing.tape import Malformed, Reading
from mesh_llm.engine.head.parsing.telling import Call

BEGIN, IDENTITY, ARGUMENTS = "[TOOL_CALLS]", "[CALL_ID]", "[ARGS]"

_WORD = re.compile(r"[^\[\s]*")


class MistralArgsParser(CallsParser):
    begins = (BEGIN,)
    is_loose = True

    def read_calls(self, mark: str) -> Reading[None]:
        if (yield from self.read_one(mark)):
            yield from self.tape.space()

    def read_call(self, call: Call) -> Reading[None]:
        name = yield from self.tape.run(_WORD)
        if name not in self.tools:
            raise Malformed
        if (yield from self.tape.accept(IDENTITY)):
            call.identify((yield from self.tape.run(_WORD)))
        yield from self.tape.expect(ARGUMENTS)
        self.begin(call, name)
        yield from self.tape.space()
        yield from read_object(self.tape, call.arguments)
