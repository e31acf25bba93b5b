"""Grammars of chat answers that are JSON of a schema, with what models write around it. Pure.

Counterparts: the `response_format` of `build_parser` in chat-auto-parser-generator.cpp, and that of each of
common/parsers/*.cpp. `schema_parser.py` takes away again what stands around the JSON.
"""

from collections.abc import Mapping
from enum import Enum

from mesh_llm.engine.head.constraints.wishes import BLANKS, Wish
from mesh_llm.engine.head.families import Family
from mesh_llm.engine.head.parsing import harmony
from mesh_llm.engine.head.parsing.answer_parser import Form
from mesh_llm.engine.head.parsing.lark import SPACE, Lark
from mesh_llm.engine.head.parsing.thought_grammar import thoughts

FENCE, FENCE_END = "```json", "```"


class Fencing(Enum):
    """Whether models of a family put JSON into a fence, as they write it for people."""

    MAYBE = "maybe"
    ALWAYS = "always"
    NEVER = "never"


FENCING: Mapping[Family, Fencing] = {
    Family.QWEN_CODER: Fencing.NEVER,
    Family.HARMONY: Fencing.NEVER,
    Family.MISTRAL_ARGS: Fencing.ALWAYS,
    Family.GEMMA: Fencing.ALWAYS,
    Family.DEEPSEEK_DSML: Fencing.ALWAYS,
}
"""MAYBE for all others, for which llama.cpp finds out the form by trying."""


def fencing_of(family: Family) -> Fencing:
    return FENCING.get(family, Fencing.MAYBE)


def schema_grammar(family: Family, form: Form, schema: str, *, control: Mapping[str, int]) -> Wish:
    """`schema`: of `Wish.schema`. `control` as in `call_grammar`."""
    lark = Lark(control)
    lark.rule("start", "")
    lark.rule("answer", f"%json {schema}")
    if form.content_is_open:
        lark.rule("start", "answer")
    elif family is Family.HARMONY:
        lark.rule("start", f"{thoughts(lark, family, form)} {_final(lark)}")
    else:
        around = _AROUND[fencing_of(family)]
        lark.rule("start", f"{thoughts(lark, family, form)} ({around})".strip())
    return Wish(lark.text(), schema=schema)


def _blanks(count: int) -> str:
    return f"/{BLANKS}{{0,{count}}}/"


_FENCED = f'"{FENCE}" {_blanks(1)} answer {_blanks(1)} "{FENCE_END}"'

_AROUND = {
    Fencing.MAYBE: f"{_blanks(3)} answer {_blanks(1)} | {_blanks(2)} {_FENCED}",
    Fencing.ALWAYS: f"{_blanks(1)} {_FENCED}",
    Fencing.NEVER: f"{_blanks(1)} answer",
}


def _final(lark: Lark) -> str:
    """The header of gpt-oss's last message, and its text."""
    kind = f"({SPACE} ({lark.literal(harmony.CONSTRAIN)})? /[A-Za-z0-9_-]{{1,16}}/)?"
    return f"{lark.literal(harmony.CHANNEL + 'final')} {kind} {lark.literal(harmony.MESSAGE)} answer"
