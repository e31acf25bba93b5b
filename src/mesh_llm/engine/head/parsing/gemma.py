"""Gemma 4: thoughts in a channel, calls in a notation of their own.

Counterpart: llama.cpp's common/parsers/gemma4.cpp. Channels without thoughts and ends without beginnings are
left out.
"""

import re

from mesh_llm.engine.head.parsing.answer_parser import FormatParser
from mesh_llm.engine.head.parsing.gemma_values import read_dictionary
from mesh_llm.engine.head.parsing.tape import Malformed, Reading
from mesh_llm.engine.head.parsing.telling import Call

CHANNEL, CHANNEL_END = "<|channel>", "<channel|>"
THOUGHT = "<|channel>thought"
BEGIN, END = "<|tool_call>", "<tool_call|>"

_NAME = re.compile(r"[^{\s]*")


class GemmaParser(FormatParser):
    def read(self) -> Reading[None]:
        tape = self.tape
        marks = (CHANNEL, CHANNEL_END) + ((BEGIN,) if self.tools else ())
        while mark := (yield from tape.until(marks, self.telling.content)):
            if mark == BEGIN:
                call = self.call()
                yield from call.read(self._read_call(call))
            elif (yield from tape.accept(THOUGHT)):
                yield from self._read_thoughts()
            else:
                yield from tape.expect(mark)

    def _read_thoughts(self) -> Reading[None]:
        tape, telling = self.tape, self.telling
        if self.form.thoughts_are_content:
            telling.content(THOUGHT)
            if (yield from tape.until((CHANNEL_END,), telling.content)):
                telling.content(CHANNEL_END)
        else:
            yield from tape.space()
            yield from tape.until((CHANNEL_END,), telling.reasoning)
        yield from tape.accept(CHANNEL_END)

    def _read_call(self, call: Call) -> Reading[None]:
        tape = self.tape
        yield from tape.expect(BEGIN)
        yield from tape.expect("call:")
        name = yield from tape.run(_NAME)
        if name not in self.tools:
            raise Malformed
        call.begin(name)
        yield from read_dictionary(tape, call.arguments)
        yield from tape.expect(END)
