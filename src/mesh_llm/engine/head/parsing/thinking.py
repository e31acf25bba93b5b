"""Thoughts at the beginning of an answer.

Counterpart: `analyze_reasoning::build_parser` of chat-auto-parser-generator.cpp, and the like in each of
common/parsers/*.cpp.
"""

from collections.abc import Sequence

from mesh_llm.engine.head.parsing.answer_parser import FormatParser
from mesh_llm.engine.head.parsing.tape import Reading


def read_thoughts(parser: FormatParser, ends: Sequence[str] = ()) -> Reading[None]:
    """If it begins with any. `ends` end them too, and are left for who reads on.

    White space around the marks is left out; what comes before the end belongs to the thoughts.
    """
    form, tape = parser.form, parser.tape
    if form.thinking is None or form.thoughts_are_content or form.content_is_open:
        return
    yield from tape.space()
    if not form.thinking_is_open and not (yield from tape.accept(form.thinking.begin.strip())):
        return
    yield from tape.space()
    end = form.thinking.end.strip()
    if (yield from tape.until((end, *ends), parser.telling.reasoning)) == end:
        yield from tape.expect(end)
        yield from tape.space()
