"""The parser of each family."""

from mesh_llm.engine.head.families import Family, Thinking
from mesh_llm.engine.head.parsing.answer_parser import AnswerParser, Form, FormatParser
from mesh_llm.engine.head.parsing.plain import PlainParser

PARSERS: dict[Family, type[FormatParser]] = {}


def parser_of(family: Family, form: Form) -> AnswerParser:
    return PARSERS.get(family, PlainParser)(form)


def preserved(family: Family, thinking: Thinking | None) -> frozenset[str]:
    """Texts of tokens that a parser must be shown although they are special (`preserved_tokens`)."""
    marks = {thinking.begin.strip(), thinking.end.strip()} if thinking else set[str]()
    return frozenset(marks)
