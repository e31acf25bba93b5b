"""Thoughts at the beginning of an answer.

Counterpart: `analyze_reasoning::build_parser` of chat-auto-parser-generator.cpp, and the like in each of
common/parsers/*.cpp.
"""

from collections.abc import Sequence

from mesh_llm.engine.head.families import Thinking
from mesh_llm.engine.head.parsing.answer_parser import FormatParser
from mesh_llm.engine.head.parsing.tape import Reading, Tape


def read_thoughts(parser: FormatParser, ends: Sequence[str] = (), *, is_loose: bool = False) -> Reading[bool]:
    """If it begins with any; whether it may. `ends` end them too, and are left for who reads on.

    White space around the marks is left out: as much as the template writes there, all where that `is_loose`.
    """
    thinking, tape = parser.thinking, parser.tape
    if thinking is None:
        return False
    yield from tape.space()
    begin, end = thinking.begin.strip(), thinking.end.strip()
    if begin and not (yield from tape.accept(begin)):
        return True
    yield from _skip(tape, thinking.begin, is_loose=is_loose)
    if (yield from tape.until((end, *ends), parser.telling.reasoning)) == end:
        yield from tape.expect(end)
        yield from _skip(tape, thinking.end, is_loose=is_loose)
    return True


def opening_of(prompt_end: str, thinking: Thinking | None) -> str:
    """What of a prompt belongs to the answer that follows (`common_chat_peg_builder::prefix`)."""
    begin = thinking.begin.strip() if thinking is not None else ""
    at = prompt_end.find(begin) if begin else -1
    return prompt_end[at:] if at >= 0 else ""


def _skip(tape: Tape, mark: str, *, is_loose: bool) -> Reading[None]:
    if is_loose:
        yield from tape.space()
    for blank in mark[len(mark.rstrip()) :]:
        yield from tape.accept(blank)
