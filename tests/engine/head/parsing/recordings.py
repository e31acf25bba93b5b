"""Answers as models of each family write them, with what they mean: `recorded/*.json`, one file a family.

`lenient` marks those that llama-server fails on, or reads otherwise; all others it reads the same.
"""

import itertools
import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mesh_llm.engine.head.families import Family, Thinking
from mesh_llm.engine.head.parsing.answer_parser import Form
from mesh_llm.engine.head.parsing.deltas import CallArguments, CallBegin, Content, Reasoning
from mesh_llm.engine.head.parsing.parsers import parser_of
from mesh_llm.engine.head.parsing.tools import Tool

FOLDER = Path(__file__).parent / "recorded"

TOOLS = (
    Tool(
        "get_weather",
        {
            "type": "object",
            "properties": {
                "city": {"type": "string"},
                "days": {"type": "integer"},
                "strict": {"type": "boolean"},
            },
            "required": ["city"],
        },
    ),
    Tool(
        "run_code",
        {
            "type": "object",
            "properties": {"code": {"type": "string"}, "options": {"type": "object"}},
            "required": ["code"],
        },
    ),
    Tool("now"),
)

SPACED = Thinking("<think>\n", "\n</think>\n\n")
BARE = Thinking("<think>", "</think>")

THINKING = {
    Family.HERMES: SPACED,
    Family.QWEN_CODER: SPACED,
    Family.MINIMAX: SPACED,
    Family.MISTRAL_ARGS: Thinking("[THINK]", "[/THINK]"),
    Family.GEMMA: Thinking("<|channel>thought\n", "<channel|>"),
    Family.HARMONY: None,
    Family.LLAMA3: None,
    Family.MISTRAL: None,
}


@dataclass
class Answered:
    content: str = ""
    reasoning: str = ""
    calls: list[dict[str, Any]] = field(default_factory=list)


@dataclass(frozen=True)
class Recording:
    family: Family
    values: dict[str, Any]

    @property
    def name(self) -> str:
        return f"{self.family.value}: {self.values['name']}"

    @property
    def text(self) -> str:
        return self.values["text"]

    @property
    def form(self) -> Form:
        drawn = itertools.count()
        thinks = self.values.get("thinks", True)
        return Form(
            identify=lambda: f"drawn-{next(drawn)}",
            tools=TOOLS,
            thinking=BARE
            if "opening" in self.values
            else THINKING.get(self.family, BARE)
            if thinks
            else None,
            thinking_is_open=self.values.get("open", False),
            opening=self.values.get("opening", ""),
        )


def recordings() -> list[Recording]:
    return [
        Recording(Family(path.stem), values)
        for path in sorted(FOLDER.glob("*.json"))
        for values in json.loads(path.read_text())
    ]


def answered(family: Family, form: Form, pieces: Iterable[str]) -> Answered:
    """What its deltas make together, in whose order calls begin before they go on."""
    parser, whole = parser_of(family, form), Answered()
    deltas = [delta for piece in pieces for delta in parser.feed(piece)]
    for delta in deltas + parser.finish():
        match delta:
            case Content(text):
                whole.content += text
            case Reasoning(text):
                whole.reasoning += text
            case CallBegin(index, identity, name):
                assert index == len(whole.calls)
                whole.calls.append({"id": identity, "name": name, "arguments": ""})
            case CallArguments(index, text):
                assert index == len(whole.calls) - 1 and text
                whole.calls[index]["arguments"] += text
    return whole
