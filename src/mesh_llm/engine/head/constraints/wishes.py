"""What a request wants its answer to look like, read from its body. Pure.

Counterparts: `oaicompat_chat_params_parse` of server-common.cpp, and "json_schema" and "grammar" of
`make_llama_cmpl_schema` (server-schema.cpp). Whether a grammar is any good is told by who compiles it.
"""

from dataclasses import dataclass
from typing import Literal

LLGUIDANCE = "%llguidance"
"""A grammar that begins so is llguidance's, any other GBNF: `common_sampler_init` of sampling.cpp."""


@dataclass(frozen=True, slots=True)
class Trigger:
    """What sets a lazy grammar to work, when the answer has said it."""

    text: str
    kind: Literal["word", "pattern", "end"] = "word"
    """word: the grammar begins with the text itself. pattern: with the first group of this regular
    expression (never one of a client's). end: behind the text."""


@dataclass(frozen=True, slots=True)
class Wish:
    grammar: str
    """GBNF whose start is `root`, or Lark for llguidance behind a line that begins with %llguidance."""
    triggers: tuple[Trigger, ...] = ()
    """None: from the first token on."""
