"""Grammars that keep calls of tools to their family's form, and their arguments to their schemas. Pure.

Counterpart: the grammars that llama.cpp makes of its parsers (common/parsers/*.cpp, `build_tool_parser_*` of
chat-auto-parser-generator.cpp). Unlike there, a call that is required comes right after the thoughts.
"""

from collections.abc import Mapping
from typing import Literal

from mesh_llm.engine.head.constraints.wishes import Trigger, Wish
from mesh_llm.engine.head.families import Family
from mesh_llm.engine.head.parsing import (
    deepseek,
    deepseek_dsml,
    gemma,
    glm,
    hermes,
    minimax,
    mistral,
    qwen_coder,
)
from mesh_llm.engine.head.parsing.answer_parser import Form
from mesh_llm.engine.head.parsing.call_forms import FORMS, CallForm
from mesh_llm.engine.head.parsing.lark import SPACE, Lark
from mesh_llm.engine.head.parsing.qwen_coder import bare_begins
from mesh_llm.engine.head.parsing.thought_grammar import thoughts

TRIGGERS: Mapping[Family, tuple[str, ...]] = {
    Family.HERMES: (hermes.BEGIN,),
    Family.QWEN_CODER: (qwen_coder.BEGIN,),
    Family.MISTRAL: (mistral.BEGIN,),
    Family.MISTRAL_ARGS: (mistral.BEGIN,),
    Family.GLM: (glm.BEGIN,),
    Family.DEEPSEEK_R1: (deepseek.SECTION,),
    Family.DEEPSEEK_V31: (deepseek.SECTION,),
    Family.DEEPSEEK_DSML: tuple(f"<{deepseek_dsml.DSML}{name}>" for name in deepseek_dsml.SECTIONS),
    Family.MINIMAX: (minimax.BEGIN,),
    Family.GEMMA: (gemma.BEGIN,),
}

HARMONY_TRIGGER = Trigger(
    r"(?:^|<\|start\|>assistant)((?:<\|channel\|>(?:commentary|analysis))? to=functions)", "pattern"
)


def call_grammar(
    family: Family,
    form: Form,
    choice: Literal["auto", "required"],
    *,
    control: Mapping[str, int],
    parallel: bool,
) -> Wish | None:
    """None: calls are left free. With "auto" it is lazy, else it rules from the first token on.

    `control`: numbers of those tokens of `preserved` that are control tokens of the model, by their text: in
    a grammar they are not the text that they look like.
    """
    triggers = _triggers(family, form) if choice == "auto" else ()
    if family not in FORMS or not form.tools or (choice == "auto" and not triggers):
        return None
    lark = Lark(control)
    lark.rule("start", "")
    calls = " | ".join(_calls(lark, one, form, parallel=parallel) for one in FORMS[family])
    if family is Family.QWEN_CODER:
        begin = f"{lark.literal(qwen_coder.BEGIN)} {SPACE}"
        calls = f"({begin})? {calls}" if bare_begins(form) else f"{begin} {calls}"
    lark.rule("start", calls if choice == "auto" else f"{thoughts(lark, family, form) or SPACE} ({calls})")
    return Wish(lark.text(), triggers)


def _triggers(family: Family, form: Form) -> tuple[Trigger, ...]:
    if family is Family.HARMONY:
        return (HARMONY_TRIGGER,)
    bare = bare_begins(form) if family is Family.QWEN_CODER else ()
    return tuple(Trigger(text) for text in (*TRIGGERS.get(family, ()), *bare))


def _calls(lark: Lark, form: CallForm, answer: Form, *, parallel: bool) -> str:
    calls = [
        lark.rule(f"call_{number}", form.call(lark, number, tool)) for number, tool in enumerate(answer.tools)
    ]
    call = lark.rule("call", " | ".join(calls))
    more = f"({SPACE} {_mark(lark, form.between)} {call})*" if parallel and form.between is not None else ""
    end = f"{SPACE} {lark.literal(form.end)}" if form.end else ""
    return f"{_mark(lark, form.begin)} {call} {more} {end}".strip()


def _mark(lark: Lark, text: str) -> str:
    return f"{lark.literal(text)} {SPACE}" if text else ""
