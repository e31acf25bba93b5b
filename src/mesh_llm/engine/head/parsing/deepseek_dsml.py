"""DeepSeek's markup: V3.2 names its section `function_calls`, V4 `tool_calls`.

Counterpart: llama.cpp's common/parsers/deepseek.cpp.
"""

import re

from mesh_llm.engine.head.parsing.calls_parser import CallsParser
from mesh_llm.engine.head.parsing.tagged_arguments import TaggedArguments
from mesh_llm.engine.head.parsing.tape import Reading
from mesh_llm.engine.head.parsing.telling import Call

DSML = "\uff5cDSML\uff5c"
SECTIONS = ("function_calls", "tool_calls")
INVOKE, INVOKE_END = f'<{DSML}invoke name="', f"</{DSML}invoke>"
PARAMETER, PARAMETER_END = f'<{DSML}parameter name="', f"</{DSML}parameter>"

_NAME = re.compile(r'[^"\s]*')


class DsmlParser(CallsParser):
    begins = tuple(f"{blank}<{DSML}{name}>" for blank in ("\n\n", "") for name in SECTIONS)
    thoughts_end_with_calls = True

    def read_calls(self, mark: str) -> Reading[None]:
        yield from self.read_series(mark, mark.strip().replace("<", "</"))

    def read_call(self, call: Call) -> Reading[None]:
        tape = self.tape
        yield from tape.expect(INVOKE)
        name = yield from tape.run(_NAME)
        yield from tape.expect('">')
        self.begin(call, name)
        arguments = TaggedArguments(tape, call, self.tools[name])
        yield from tape.space()
        while (yield from tape.accept(PARAMETER)):
            key = yield from tape.run(_NAME)
            yield from tape.expect('" string="')
            kind = yield from tape.run(_NAME)
            yield from tape.expect('">')
            yield from arguments.read(key, (PARAMETER_END,), is_text=kind != "false")
            yield from tape.space()
        yield from tape.expect(INVOKE_END)
        arguments.end()
