"""`<arg_key>` and `<arg_value>` within `<tool_call>`: GLM 4.5 to 4.7."""

import re

from mesh_llm.engine.head.parsing.calls_parser import CallsParser
from mesh_llm.engine.head.parsing.tagged_arguments import TaggedArguments
from mesh_llm.engine.head.parsing.tape import Reading
from mesh_llm.engine.head.parsing.telling import Call

BEGIN, END = "<tool_call>", "</tool_call>"
KEY_BEGIN, KEY_END = "<arg_key>", "</arg_key>"
VALUE_BEGIN, VALUE_END = "<arg_value>", "</arg_value>"

_NAME = re.compile(r"[^<\s]*")
_KEY = re.compile(r"[^<]*")


class GlmParser(CallsParser):
    begins = (BEGIN,)

    def read_calls(self, mark: str) -> Reading[None]:
        if (yield from self.read_one(mark)):
            yield from self.tape.space()

    def read_call(self, call: Call) -> Reading[None]:
        tape = self.tape
        name = yield from tape.run(_NAME)
        self.begin(call, name)
        arguments = TaggedArguments(tape, call, self.tools[name])
        yield from tape.space()
        while (yield from tape.accept(KEY_BEGIN)):
            key = yield from tape.run(_KEY)
            yield from tape.expect(KEY_END)
            yield from tape.space()
            yield from tape.expect(VALUE_BEGIN)
            yield from arguments.read(key, (VALUE_END,))
            yield from tape.space()
        yield from tape.expect(END)
        arguments.end()
