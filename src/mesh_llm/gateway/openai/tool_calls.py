"""Replies that are tool calls written as JSON text, turned back into `tool_calls` chunk by chunk.

`ForcedCall` reads text under a grammar, so that it can pass arguments on while they are being written.
`CallRecogniser` reads free text: it holds back only what may still become a call.
"""

import json
import re
from collections.abc import Callable
from typing import Any

from mesh_llm.gateway.exchange import Identify
from mesh_llm.gateway.json_values import Json, as_object, objects_at

HEAD = re.compile(r'\s*\{\s*"name"\s*:\s*("(?:[^"\\]|\\.)*")\s*,\s*"arguments"\s*:\s*')
FENCE = re.compile(r"\A\s*(?:```(?:json)?|<tool_call>)\s*(.*?)\s*(?:```|</tool_call>)?\s*\Z", re.DOTALL)
OPENINGS = ('{"name":', "```{", "```json{", "<tool_call>{")
"""How a call may begin, blanks left out."""


class JsonExtent:
    """Finds where a JSON object ends in text that comes in pieces."""

    def __init__(self) -> None:
        self._depth = 0
        self._in_string = False
        self._escaped = False
        self.ended = False

    def feed(self, piece: str) -> str:
        """The part of `piece` that belongs to the object."""
        for position, character in enumerate(piece):
            self._step(character)
            if self.ended:
                return piece[: position + 1]
        return piece

    def _step(self, character: str) -> None:
        if self._in_string:
            if self._escaped:
                self._escaped = False
            elif character == "\\":
                self._escaped = True
            elif character == '"':
                self._in_string = False
        elif character == '"':
            self._in_string = True
        elif character in "{[":
            self._depth += 1
        elif character in "}]":
            self._depth -= 1
            self.ended = self._depth <= 0


class _PerChoice:
    """Chunks in, chunks out, with each choice's text read by a reader of its own."""

    def __init__(self, make_reader: "Callable[[], _ForcedReader | _FreeReader]") -> None:
        self._make_reader = make_reader
        self._readers: dict[int, _ForcedReader | _FreeReader] = {}

    def feed(self, chunk: Json) -> list[Json]:
        choices = objects_at(chunk, "choices")
        if not choices:
            return [chunk]
        out: list[Json] = []
        for choice in choices:
            reader = self._readers.setdefault(int(choice.get("index") or 0), self._make_reader())
            out.extend(chunk | {"choices": [mended]} for mended in _mend(choice, reader))
        return out

    def finish(self) -> list[Json]:
        return []  # every choice ends with a finish_reason, and what was held back goes out with it


def _mend(choice: Json, reader: "_ForcedReader | _FreeReader") -> list[Json]:
    delta = as_object(choice.get("delta")) or {}
    rest = {name: value for name, value in delta.items() if name != "content" or value is None}
    deltas = reader.feed(delta["content"]) if delta.get("content") else []
    reason = choice.get("finish_reason")
    if reason:
        deltas += reader.finish()
    quiet = {name: value for name, value in choice.items() if name != "logprobs"} | {"finish_reason": None}
    pieces = [rest, *deltas] if rest else deltas
    out: list[Json] = [quiet | {"delta": piece} for piece in pieces]
    if reason:
        called = reader.called and reason == "stop"
        out.append(quiet | {"delta": {}, "finish_reason": "tool_calls" if called else reason})
    return out


class ForcedCall(_PerChoice):
    """For replies that a grammar holds to `{"name": ..., "arguments": ...}`."""

    def __init__(self, identify: Identify) -> None:
        super().__init__(lambda: _ForcedReader(identify))


class CallRecogniser(_PerChoice):
    """For replies that may be a call of one of `names`, or anything else."""

    def __init__(self, names: frozenset[str], identify: Identify) -> None:
        super().__init__(lambda: _FreeReader(names, identify))


class _ForcedReader:
    def __init__(self, identify: Identify) -> None:
        self._identify = identify
        self._head = ""
        self._arguments = JsonExtent()
        self.called = False

    def feed(self, piece: str) -> list[Json]:
        if self.called:
            return self._feed_arguments(piece)
        self._head += piece
        head = HEAD.match(self._head)
        if head is None or head.end() == len(self._head):
            return []  # the next piece may still be white space before the arguments
        self.called = True
        name = json.loads(head.group(1))
        return [
            _call_delta(self._identify("call_"), name, ""),
            *self._feed_arguments(self._head[head.end() :]),
        ]

    def _feed_arguments(self, piece: str) -> list[Json]:
        if self._arguments.ended:
            return []
        piece = self._arguments.feed(piece)
        return [{"tool_calls": [{"index": 0, "function": {"arguments": piece}}]}]

    def finish(self) -> list[Json]:
        return []


class _FreeReader:
    def __init__(self, names: frozenset[str], identify: Identify) -> None:
        self._names = names
        self._identify = identify
        self._held = ""
        self._is_text = False
        self.called = False

    def feed(self, piece: str) -> list[Json]:
        if self._is_text:
            return [{"content": piece}]
        self._held += piece
        if _may_become_call(self._held):
            return []
        self._is_text = True
        return self._let_go()

    def finish(self) -> list[Json]:
        call = _read_call(self._held, self._names) if not self._is_text else None
        if call is None:
            return self._let_go()
        self.called = True
        self._held = ""
        return [_call_delta(self._identify("call_"), call[0], call[1])]

    def _let_go(self) -> list[Json]:
        held, self._held = self._held, ""
        return [{"content": held}] if held else []


def _may_become_call(text: str) -> bool:
    compact = "".join(text[:64].split())
    return any(opening.startswith(compact) or compact.startswith(opening) for opening in OPENINGS)


def _read_call(text: str, names: frozenset[str]) -> tuple[str, str] | None:
    fenced = FENCE.match(text)
    try:
        written: Any = json.loads(fenced.group(1) if fenced else text)
    except (ValueError, RecursionError):
        return None
    call = as_object(written) or {}
    arguments = as_object(call.get("arguments", call.get("parameters", {})))
    if call.get("name") not in names or arguments is None:
        return None
    return call["name"], json.dumps(arguments, ensure_ascii=False)


def _call_delta(identity: str, name: str, arguments: str) -> Json:
    function = {"name": name, "arguments": arguments}
    return {"tool_calls": [{"index": 0, "id": identity, "type": "function", "function": function}]}
