"""Arguments that stand one by one between marks, made into the JSON of a call.

Counterpart: `common_chat_peg_mapper` of llama.cpp's chat-peg-parser.cpp, whose JSON has no white space.
"""

import json
from collections.abc import Sequence
from typing import Any

from mesh_llm.engine.head.parsing.json_reading import escape
from mesh_llm.engine.head.parsing.tape import CutOff, Reading, Tape
from mesh_llm.engine.head.parsing.telling import Call
from mesh_llm.engine.head.parsing.tools import Tool

TEXT = frozenset({"string"})


class TaggedArguments:
    def __init__(self, tape: Tape, call: Call, tool: Tool) -> None:
        self._tape = tape
        self._call = call
        self._tool = tool
        self._separator = ""
        call.arguments("{")

    def read(self, name: str, ends: Sequence[str], *, is_text: bool | None = None) -> Reading[None]:
        """A value, and the first of `ends` behind it. Its schema says whether it is text, or `is_text`.

        Where a schema allows text and something else, it is what it looks like. Raises CutOff.
        """
        self._call.arguments(f'{self._separator}"{escape(name)}":')
        self._separator = ","
        types = self._tool.types(name)
        if is_text or (is_text is None and types == TEXT):
            yield from self._read_text(ends)
        else:
            yield from self._read_json(ends, types)

    def end(self) -> None:
        self._call.arguments("}")

    def _read_text(self, ends: Sequence[str]) -> Reading[None]:
        self._call.arguments('"')
        end = yield from self._tape.until(ends, lambda text: self._call.arguments(escape(text)))
        yield from self._take(end)
        self._call.arguments('"')

    def _read_json(self, ends: Sequence[str], types: frozenset[str]) -> Reading[None]:
        pieces: list[str] = []
        end = yield from self._tape.until(ends, pieces.append)
        yield from self._take(end)
        text = "".join(pieces)
        self._call.arguments(text.strip() if _looks_like(text, types) else f'"{escape(text)}"')

    def _take(self, end: str) -> Reading[None]:
        if not end:
            raise CutOff
        yield from self._tape.expect(end)


def _looks_like(text: str, types: frozenset[str]) -> bool:
    """JSON of one of `types`, unless that is text."""
    try:
        value: Any = json.loads(text)
    except (ValueError, RecursionError):
        return False
    return not isinstance(value, str) or "string" not in types
