"""Grammars for llguidance, rule by rule, in its dialect of Lark (its docs/syntax.md). Pure."""

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from mesh_llm.engine.head.constraints.wishes import BLANKS
from mesh_llm.engine.head.parsing.schema_types import as_object

SPACE = "space"
"""Rule: white space between parts, so little that nobody stays there."""

HEAD = '%llguidance {"no_forcing": true}\n'
"""What leaves no choice may be said in any tokens, as with llama.cpp's grammars."""

JSON_SPACE = {"x-guidance": {"whitespace_pattern": BLANKS}}
"""Option of its JSON grammars."""
DEFINITIONS = ("$defs", "definitions")

PERMUTED_MAX = 4
"""Parts that may come in any order; there are as many rules as subsets of them."""


class Lark:
    def __init__(self, control: Mapping[str, int]) -> None:
        """`control`: numbers of the model's control tokens by their text, which no text stands for."""
        self._control = control
        self._split = re.compile("|".join(map(re.escape, control)) or "(?!)")
        self._rules: dict[str, str] = {SPACE: r"/[ \t\n]{0,8}/"}

    @property
    def count(self) -> int:
        """Of rules so far: for names of new ones."""
        return len(self._rules)

    def text(self) -> str:
        return HEAD + "".join(f"{name}: {body}\n" for name, body in self._rules.items())

    def rule(self, name: str, body: str) -> str:
        self._rules[name] = body
        return name

    def literal(self, text: str) -> str:
        """Exactly `text`."""
        parts = [part if part in self._control else json.dumps(part) for part in self._parts(text)]
        return " ".join(f"<[{self._control[part]}]>" if part in self._control else part for part in parts)

    def until(self, end: str) -> str:
        """Any text, and `end` behind it."""
        first = self._parts(end)[0]
        if first in self._control:
            return f"/(?s:.*)/ {self.literal(end)}"
        if first == end:
            return self.rule(f"until_{len(self._rules)}[lazy]", f"/(?s:.*){_pattern(end)}/").partition("[")[0]
        start, more = _pattern(first[0]), _pattern(first[1:2])
        text = f"/([^{start}]|{start}[^{more}])*/" if more else f"/[^{start}]*/"
        return f"{text} {self.literal(end)}"

    def json(self, schema: Any, document: Mapping[str, Any]) -> str:
        """A value of `schema`, whose references lead into `document`."""
        known = dict(as_object(schema))
        for name in DEFINITIONS:
            if name in document:
                known.setdefault(name, document[name])
        return f"%json {json.dumps(known | JSON_SPACE)}"

    def permuted(self, name: str, parts: Sequence[str]) -> str:
        """All of `parts`, in any order where they are few."""
        if len(parts) > PERMUTED_MAX:
            return " ".join(parts)
        return self._permuted(name, dict(enumerate(parts)))

    def _permuted(self, name: str, parts: Mapping[int, str]) -> str:
        if len(parts) <= 1:
            return " ".join(parts.values())
        rule = f"{name}_{''.join(map(str, parts))}"
        if rule not in self._rules:
            ways = [
                f"{part} {self._permuted(name, {key: parts[key] for key in parts if key != index})}"
                for index, part in parts.items()
            ]
            self.rule(rule, " | ".join(ways))
        return rule

    def _parts(self, text: str) -> list[str]:
        """Cut around its control tokens."""
        parts: list[str] = []
        at = 0
        for found in self._split.finditer(text):
            parts += [text[at : found.start()], found.group()]
            at = found.end()
        return [part for part in (*parts, text[at:]) if part]


def _pattern(text: str) -> str:
    """As a regular expression between slashes."""
    return re.sub(r"([^0-9A-Za-z<>=_ \u0080-\U0010ffff\n])", r"\\\1", text).replace("\n", r"\n")
