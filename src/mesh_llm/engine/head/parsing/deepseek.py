"""DeepSeek's marks around a name and JSON: V3 and R1 with a fenced block, V3.1 without."""

import re

from mesh_llm.engine.head.parsing.calls_parser import CallsParser
from mesh_llm.engine.head.parsing.json_reading import read_object
from mesh_llm.engine.head.parsing.tape import Reading
from mesh_llm.engine.head.parsing.telling import Call

SECTION, SECTION_END = "<\uff5ctool\u2581calls\u2581begin\uff5c>", "<\uff5ctool\u2581calls\u2581end\uff5c>"
BEGIN, END = "<\uff5ctool\u2581call\u2581begin\uff5c>", "<\uff5ctool\u2581call\u2581end\uff5c>"
SEPARATOR = "<\uff5ctool\u2581sep\uff5c>"
FENCE, FENCE_END = "```json", "```"

_NAME = re.compile(r"[^<\s]*")


class DeepseekParser(CallsParser):
    begins = (SECTION,)

    def read_calls(self, mark: str) -> Reading[None]:
        yield from self.read_series(mark, SECTION_END)

    def read_call(self, call: Call) -> Reading[None]:
        tape = self.tape
        yield from tape.expect(BEGIN)
        name = yield from tape.run(_NAME)
        yield from tape.expect(SEPARATOR)
        if is_fenced := not (yield from tape.sees("{")):
            name = yield from tape.run(_NAME)
            yield from tape.space()
            yield from tape.expect(FENCE)
        self.begin(call, name)
        yield from tape.space()
        yield from read_object(tape, call.arguments)
        yield from tape.space()
        if is_fenced:
            yield from tape.expect(FENCE_END)
            yield from tape.space()
        yield from tape.expect(END)
