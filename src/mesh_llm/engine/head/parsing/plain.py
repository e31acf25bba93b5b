"""Answers in which nothing is called: thoughts between marks, and text."""

from mesh_llm.engine.head.parsing.answer_parser import FormatParser
from mesh_llm.engine.head.parsing.tape import Reading
from mesh_llm.engine.head.parsing.thinking import read_thoughts


class PlainParser(FormatParser):
    def read(self) -> Reading[None]:
        yield from read_thoughts(self)
        yield from self.tape.until((), self.telling.content)
