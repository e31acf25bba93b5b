"""How a model was taught to write calls of tools and what it thinks: by marks in its template. Pure.

Counterparts: `common_chat_template_detect_params_init` and the differential analysis of llama.cpp's chat.cpp
and chat-diff-analyzer.cpp; `parsing/` reads what models of each family write, `template.py` renders for them.
Which tools there are is not known here.
"""

from dataclasses import dataclass
from enum import Enum


class Family(Enum):
    """Examples write a call of `f` with the argument `a` = "x"."""

    PLAIN = "plain"
    """Nothing known: everything is text, but for what stands between marks of thinking."""
    HERMES = "hermes"
    """`<tool_call>\\n{"name": "f", "arguments": {"a": "x"}}\\n</tool_call>`: Hermes 2, Qwen 2.5, Qwen 3."""
    QWEN_CODER = "qwen-coder"
    """`<tool_call>\\n<function=f>\\n<parameter=a>\\nx\\n</parameter>\\n</function>\\n</tool_call>`:
    Qwen3-Coder, Qwen 3.5."""
    LLAMA3 = "llama3"
    """`{"name": "f", "parameters": {"a": "x"}}` as the whole answer: Llama 3.1 to 4."""
    MISTRAL = "mistral"
    """`[TOOL_CALLS][{"name": "f", "arguments": {"a": "x"}, "id": "123456789"}]`: up to Mistral Small 3.1."""
    MISTRAL_ARGS = "mistral-args"
    """`[TOOL_CALLS]f[ARGS]{"a": "x"}`, in between perhaps `[CALL_ID]123456789`: since Mistral Small 3.2."""
    GLM = "glm"
    """`<tool_call>f\\n<arg_key>a</arg_key>\\n<arg_value>x</arg_value>\\n</tool_call>`: GLM 4.5 and later."""
    DEEPSEEK_R1 = "deepseek-r1"
    """`<|tool_calls_begin|><|tool_call_begin|>function<|tool_sep|>f\\n```json\\n{"a": "x"}\\n```
    <|tool_call_end|><|tool_calls_end|>`: DeepSeek R1, V3 and the distilled ones. In DeepSeek's marks the bars
    are U+FF5C and the low lines U+2581."""
    DEEPSEEK_V31 = "deepseek-v3.1"
    """`<|tool_calls_begin|><|tool_call_begin|>f<|tool_sep|>{"a": "x"}<|tool_call_end|><|tool_calls_end|>`."""
    DEEPSEEK_DSML = "deepseek-dsml"
    """`<|DSML|function_calls>\\n<|DSML|invoke name="f">\\n<|DSML|parameter name="a" string="true">x
    </|DSML|parameter>\\n</|DSML|invoke>\\n</|DSML|function_calls>`: DeepSeek V3.2; V4 says `tool_calls`."""
    MINIMAX = "minimax"
    """`<minimax:tool_call>\\n<invoke name="f">\\n<parameter name="a">x</parameter>\\n</invoke>\\n
    </minimax:tool_call>`: MiniMax M2 and M2.5."""
    HARMONY = "harmony"
    """`<|channel|>commentary to=functions.f <|constrain|>json<|message|>{"a": "x"}<|call|>`: gpt-oss."""
    GEMMA = "gemma"
    """`<|tool_call>call:f{a:<|"|>x<|"|>}<tool_call|>`: Gemma 4. Gemma 3 was taught no tools: PLAIN."""


@dataclass(frozen=True, slots=True)
class Thinking:
    """Texts before and after what a model thinks. Harmony has channels instead, and none of these."""

    begin: str
    end: str


def family_of(template: str) -> Family:
    """Of a chat template's text. The first that fits: later marks are parts of earlier forms."""
    for family, groups in MARKS:
        if any(all(mark in template for mark in group) for group in groups):
            return family
    return Family.PLAIN


MARKS: tuple[tuple[Family, tuple[tuple[str, ...], ...]], ...] = (
    (Family.MISTRAL_ARGS, (("[TOOL_CALLS]", "[ARGS]"),)),
    (Family.HARMONY, (("<|channel|>",),)),
    (Family.DEEPSEEK_DSML, (("dsml_token", "DSML", "function_calls"), ("dsml_token", "DSML", "tool_calls"))),
    (Family.GEMMA, (("'<|tool_call>call:'",), ("<|tool_call>call:",))),
    (Family.QWEN_CODER, (("<tool_call>", "<function=", "<parameter="),)),
    (Family.GLM, (("<tool_call>", "<arg_key>", "<arg_value>"),)),
    (Family.MINIMAX, (("<minimax:tool_call>", "<invoke name="),)),
    (Family.DEEPSEEK_R1, (("<\uff5ctool\u2581calls\u2581begin\uff5c>", "```json"),)),
    (Family.DEEPSEEK_V31, (("<\uff5ctool\u2581calls\u2581begin\uff5c>",),)),
    (Family.MISTRAL, (("[TOOL_CALLS]",),)),
    (Family.HERMES, (("<tool_call>", "</tool_call>"),)),
    (
        Family.LLAMA3,
        (
            ("<|start_header_id|>", '"parameters"', "tool_calls"),
            ("<|header_start|>", '"parameters"', "tool_calls"),
        ),
    ),
)
"""Each family with alternatives, of which all marks must be there."""
