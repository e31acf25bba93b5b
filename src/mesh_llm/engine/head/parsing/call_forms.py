"""How each family writes a call, in Lark: what its parser reads, no more."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from mesh_llm.engine.head.families import Family
from mesh_llm.engine.head.parsing import (
    deepseek,
    deepseek_dsml,
    gemma,
    gemma_values,
    glm,
    harmony,
    hermes,
    minimax,
    mistral,
    mistral_args,
    qwen_coder,
)
from mesh_llm.engine.head.parsing.lark import SPACE, Lark
from mesh_llm.engine.head.parsing.tools import Tool

TEXT = frozenset({"string"})


@dataclass(frozen=True, slots=True)
class CallForm:
    """`begin`, one call or more with `between` two of them, `end`."""

    call: Callable[[Lark, int, Tool], str]
    """The Lark of one, of a tool by its number."""
    begin: str = ""
    between: str | None = ""
    """None: there is one call only."""
    end: str = ""


def _object(lark: Lark, tool: Tool, arguments: str, more: str = "") -> str:
    name, value = json.dumps(json.dumps(tool.name)), lark.json(tool.schema, tool.schema)
    key, second = json.dumps('"name"'), json.dumps(f'"{arguments}"')
    colon, comma = f'{SPACE} ":" {SPACE}', f'{SPACE} "," {SPACE}'
    arguments_rule = lark.rule(f"arguments_{lark.count}", value)
    return f'"{{" {SPACE} {key} {colon} {name} {comma} {second} {colon} {arguments_rule} {more} {SPACE} "}}"'


def _hermes(lark: Lark, number: int, tool: Tool) -> str:
    begin, end = lark.literal(hermes.BEGIN), lark.literal(hermes.END)
    return f"{begin} {SPACE} {_object(lark, tool, 'arguments')} {SPACE} {end}"


def _llama3(lark: Lark, number: int, tool: Tool) -> str:
    return _object(lark, tool, "parameters")


def _mistral(lark: Lark, number: int, tool: Tool) -> str:
    identity = f'{SPACE} "," {SPACE} "\\"id\\"" {SPACE} ":" {SPACE} "\\"" /[a-zA-Z0-9]{{9}}/ "\\""'
    return _object(lark, tool, "arguments", identity)


def _mistral_args(lark: Lark, number: int, tool: Tool) -> str:
    begin = f"{lark.literal(mistral_args.BEGIN)} {lark.literal(tool.name)}"
    identity = f"({lark.literal(mistral_args.IDENTITY)} /[a-zA-Z0-9]{{1,40}}/)?"
    return f"{begin} {identity} {lark.literal(mistral_args.ARGUMENTS)} {SPACE} {_schema(lark, tool)}"


def _deepseek(lark: Lark, number: int, tool: Tool) -> str:
    name = lark.literal(f"{deepseek.BEGIN}{tool.name}{deepseek.SEPARATOR}")
    return f"{name} {SPACE} {_schema(lark, tool)} {SPACE} {lark.literal(deepseek.END)}"


def _deepseek_fenced(lark: Lark, number: int, tool: Tool) -> str:
    name = lark.literal(f"{deepseek.BEGIN}function{deepseek.SEPARATOR}{tool.name}\n{deepseek.FENCE}\n")
    end = f'{SPACE} "{deepseek.FENCE_END}" {lark.literal(deepseek.END)}'
    return f"{name} {SPACE} {_schema(lark, tool)} {end}"


def _harmony(lark: Lark, number: int, tool: Tool) -> str:
    channel = f'{lark.literal(harmony.CHANNEL)} ("commentary" | "analysis")'
    whom = lark.literal(f" to=functions.{tool.name}")
    form = f'(" "? ({lark.literal(harmony.CONSTRAIN)})? /[A-Za-z0-9_-]{{1,16}}/)?'
    return (
        f"({channel} {whom} | {whom} {channel}) {form} {lark.literal(harmony.MESSAGE)} {_schema(lark, tool)}"
    )


def _gemma(lark: Lark, number: int, tool: Tool) -> str:
    """Arguments of the right form; as with llama.cpp their schemas are not looked at."""
    quote = lark.literal(gemma_values.QUOTE)
    lark.rule("text", f"{quote} {lark.until(gemma_values.QUOTE)}")
    lark.rule("value", "text | dictionary | list | NUMBER | /true|false|null/")
    lark.rule("NUMBER", r"/-?(0|[1-9][0-9]{0,18})(\.[0-9]{1,18})?([eE][-+]?[0-9]{1,3})?/")
    lark.rule("pair", f'/[^:}}{{"<,\\n]{{1,64}}/ ":" {SPACE} value')
    lark.rule("dictionary", f'"{{" {SPACE} (pair ("," {SPACE} pair)*)? {SPACE} "}}"')
    lark.rule("list", f'"[" {SPACE} (value ("," {SPACE} value)*)? {SPACE} "]"')
    begin = lark.literal(f"{gemma.BEGIN}call:{tool.name}")
    return f"{begin} dictionary {lark.literal(gemma.END)}"


def _glm(lark: Lark, number: int, tool: Tool) -> str:
    def argument(name: str) -> str:
        key = lark.literal(f"{glm.KEY_BEGIN}{name}{glm.KEY_END}")
        value = _value(lark, tool, name, glm.VALUE_END)
        return f"{key} {SPACE} {lark.literal(glm.VALUE_BEGIN)} {value} {SPACE}"

    arguments = _arguments(lark, number, tool, argument)
    return f"{lark.literal(glm.BEGIN + tool.name)} {SPACE} {arguments} {lark.literal(glm.END)}"


def _qwen_coder(lark: Lark, number: int, tool: Tool) -> str:
    """Without its first mark."""

    def argument(name: str) -> str:
        key = lark.literal(f"{qwen_coder.PARAMETER}{name}>\n")
        return f"{key} {_value(lark, tool, name, qwen_coder.SURE_ENDS[0])}"

    begin = lark.literal(f"{qwen_coder.FUNCTION}{tool.name}>\n")
    end = lark.literal(f"{qwen_coder.FUNCTION_END}\n{qwen_coder.END}")
    return f"{begin} {_arguments(lark, number, tool, argument)} {end}"


def _minimax(lark: Lark, number: int, tool: Tool) -> str:
    def argument(name: str) -> str:
        key = lark.literal(f'{minimax.PARAMETER}{name}">')
        return f"{key} {_value(lark, tool, name, minimax.PARAMETER_END)} {SPACE}"

    begin = lark.literal(f'{minimax.INVOKE}{tool.name}">')
    arguments = _arguments(lark, number, tool, argument)
    return f"{begin} {SPACE} {arguments} {lark.literal(minimax.INVOKE_END)}"


def _dsml(lark: Lark, number: int, tool: Tool) -> str:
    def argument(name: str) -> str:
        is_text = "true" if tool.types(name) == TEXT else "false"
        key = lark.literal(f'{deepseek_dsml.PARAMETER}{name}" string="{is_text}">')
        return f"{key} {_value(lark, tool, name, deepseek_dsml.PARAMETER_END, mixed_is_json=True)} {SPACE}"

    begin = lark.literal(f'{deepseek_dsml.INVOKE}{tool.name}">\n')
    arguments = _arguments(lark, number, tool, argument)
    return f"{begin} {arguments} {lark.literal(deepseek_dsml.INVOKE_END)}"


def _schema(lark: Lark, tool: Tool) -> str:
    return lark.rule(f"arguments_{lark.count}", lark.json(tool.schema, tool.schema))


def _value(lark: Lark, tool: Tool, name: str, end: str, *, mixed_is_json: bool = False) -> str:
    """Of an argument, with `end`: bare where it may be text, else JSON of its schema."""
    types = tool.types(name)
    if "string" in types and not (mixed_is_json and types != TEXT):
        return lark.until(end)
    value = lark.rule(f"value_{lark.count}", lark.json(tool.properties.get(name, {}), tool.schema))
    return f"{value} {lark.literal(end)}"


def _arguments(lark: Lark, number: int, tool: Tool, argument: Callable[[str], str]) -> str:
    """The required ones in any order, then any of the others."""
    rules = {
        name: lark.rule(f"argument_{number}_{index}", argument(name))
        for index, name in enumerate(tool.properties)
    }
    required = [rule for name, rule in rules.items() if name in tool.required]
    others = [rule for name, rule in rules.items() if name not in tool.required]
    more = f"({' | '.join(others)})*" if others else ""
    return f"{lark.permuted(f'required_{number}', required)} {more}"


FORMS: Mapping[Family, tuple[CallForm, ...]] = {
    Family.HERMES: (CallForm(_hermes),),
    Family.QWEN_CODER: (CallForm(_qwen_coder, between=qwen_coder.BEGIN),),
    Family.LLAMA3: (CallForm(_llama3, between=None),),
    Family.MISTRAL: (CallForm(_mistral, begin=f"{mistral.BEGIN}[", between=",", end="]"),),
    Family.MISTRAL_ARGS: (CallForm(_mistral_args),),
    Family.GLM: (CallForm(_glm),),
    Family.DEEPSEEK_R1: (CallForm(_deepseek_fenced, begin=deepseek.SECTION, end=deepseek.SECTION_END),),
    Family.DEEPSEEK_V31: (CallForm(_deepseek, begin=deepseek.SECTION, end=deepseek.SECTION_END),),
    Family.DEEPSEEK_DSML: tuple(
        CallForm(_dsml, begin=f"<{deepseek_dsml.DSML}{name}>", end=f"</{deepseek_dsml.DSML}{name}>")
        for name in deepseek_dsml.SECTIONS
    ),
    Family.MINIMAX: (CallForm(_minimax, begin=minimax.BEGIN, end=minimax.END),),
    Family.HARMONY: (CallForm(_harmony, between=None),),
    Family.GEMMA: (CallForm(_gemma),),
}
"""PLAIN has none."""
