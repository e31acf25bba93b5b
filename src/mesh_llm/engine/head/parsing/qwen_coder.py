"""`<function=...>` and `<parameter=...>` within `<tool_call>`: Qwen3-Coder, Qwen 3.5.

Counterpart: llama.cpp's common/parsers/qwen3-coder.cpp, where a call may begin without its `<tool_call>`.
"""

import re

from mesh_llm.engine.head.parsing.answer_parser import Form
from mesh_llm.engine.head.parsing.calls_parser import CallsParser
from mesh_llm.engine.head.parsing.tagged_arguments import TaggedArguments
from mesh_llm.engine.head.parsing.tape import Reading
from mesh_llm.engine.head.parsing.telling import Call

BEGIN, END = "<tool_call>", "</tool_call>"
FUNCTION, FUNCTION_END = "<function=", "</function>"
PARAMETER = "<parameter="
SURE_ENDS = ("\n</parameter>\n",)
ENDS = ("\n</parameter>", "</parameter>")

_NAME = re.compile(r"[^>\s]*")


class QwenCoderParser(CallsParser):
    thoughts_end_with_calls = True
    is_loose = True

    def __init__(self, form: Form) -> None:
        self.begins = (BEGIN, *(bare_begins(form)))
        self._ends = SURE_ENDS if form.calls_are_sure else ENDS
        super().__init__(form)

    def read_calls(self, mark: str) -> Reading[None]:
        if (yield from self.read_one(mark if mark == BEGIN else "")):
            yield from self.tape.space()

    def read_call(self, call: Call) -> Reading[None]:
        tape = self.tape
        yield from tape.expect(FUNCTION)
        name = yield from tape.run(_NAME)
        yield from tape.expect(">")
        self.begin(call, name)
        arguments = TaggedArguments(tape, call, self.tools[name])
        yield from tape.space()
        while (yield from tape.accept(PARAMETER)):
            key = yield from tape.run(_NAME)
            yield from tape.expect(">")
            yield from tape.accept("\n")
            yield from arguments.read(key, self._ends)
            yield from tape.space()
        yield from tape.expect(FUNCTION_END)
        arguments.end()
        yield from tape.space()
        yield from tape.expect(END)


def bare_begins(form: Form) -> tuple[str, ...]:
    """Of models that do not think; `<function=` alone may be text."""
    return () if form.thinking else tuple(f"{FUNCTION}{tool.name}>" for tool in form.tools)
