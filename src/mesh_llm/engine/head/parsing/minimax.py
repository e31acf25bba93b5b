"""`<invoke>` and `<parameter>` within `<minimax:tool_call>`: MiniMax M2 and M2.5."""

import re

from mesh_llm.engine.head.parsing.calls_parser import CallsParser
from mesh_llm.engine.head.parsing.tagged_arguments import TaggedArguments
from mesh_llm.engine.head.parsing.tape import Reading
from mesh_llm.engine.head.parsing.telling import Call

BEGIN, END = "<minimax:tool_call>", "</minimax:tool_call>"
INVOKE, INVOKE_END = '<invoke name="', "</invoke>"
PARAMETER, PARAMETER_END = '<parameter name="', "</parameter>"

_NAME = re.compile(r'[^"\s]*')


class MinimaxParser(CallsParser):
    begins = (BEGIN,)

    def read_calls(self, mark: str) -> Reading[None]:
        yield from self.read_series(mark, END)

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
            yield from tape.expect('">')
            yield from arguments.read(key, (PARAMETER_END,))
            yield from tape.space()
        yield from tape.expect(INVOKE_END)
        arguments.end()
