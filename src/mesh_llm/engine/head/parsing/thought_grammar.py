"""The grammar of thoughts before what is ruled: a call that is required, an answer of a schema. Pure.

Counterpart: `thinking.py`, which reads them.
"""

from mesh_llm.engine.head.families import Family
from mesh_llm.engine.head.parsing import harmony
from mesh_llm.engine.head.parsing.answer_parser import Form
from mesh_llm.engine.head.parsing.lark import SPACE, Lark


def thoughts(lark: Lark, family: Family, form: Form) -> str:
    """Empty where none may come."""
    if family is Family.HARMONY:
        header = lark.literal(f"{harmony.CHANNEL}analysis{harmony.MESSAGE}")
        then = lark.literal(f"{harmony.START}assistant")
        one = lark.rule("thought", f"{header} {lark.until(harmony.END)} {then}")
        begun = f"{lark.until(harmony.END)} {then} " if form.thinking_is_open else ""
        return f"{begun}({one})*"
    is_over = form.content_is_open or (form.opening and not form.thinking_is_open)
    if form.thinking is None or is_over or not form.thinking.end.strip():
        return ""
    rest = f"{lark.until(form.thinking.end.strip())} {SPACE}"
    if form.thinking_is_open or not form.thinking.begin.strip():
        return rest
    return f"{SPACE} ({lark.literal(form.thinking.begin.strip())} {rest})?"
