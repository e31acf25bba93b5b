"""Chat chunks into the events and the final object of `/v1/messages`.

A message is a row of blocks: thinking, text, tool uses. At most one is open; the next one
closes it.
"""

import json

from mesh_llm.core.errors import MeshError
from mesh_llm.gateway.errors import anthropic_shape
from mesh_llm.gateway.exchange import Identify
from mesh_llm.gateway.json_values import Json, as_object, object_at, objects_at
from mesh_llm.gateway.sse import encode

STOP_REASONS = {"stop": "end_turn", "length": "max_tokens", "tool_calls": "tool_use"}


class MessagesWriter:
    def __init__(self, model: str, identify: Identify) -> None:
        self._identify = identify
        self._begun = False
        self._pieces: list[str] = []
        self._call_index: int | None = None
        self._is_open = False
        self._finish_reason: str | None = None
        self._message: Json = {
            "id": identify("msg_"),
            "type": "message",
            "role": "assistant",
            "model": model,
            "content": [],
            "stop_reason": None,
            "stop_sequence": None,
            "usage": _usage(0, 0, 0),
        }

    def feed(self, chunk: Json) -> bytes:
        progress = as_object(chunk.get("prompt_progress"))
        if progress is not None and not self._begun:
            total, cached = int(progress.get("total") or 0), int(progress.get("cache") or 0)
            self._message["usage"] = _usage(total, cached, 0)
        out = self._begin()
        for choice in objects_at(chunk, "choices"):
            delta = object_at(choice, "delta")
            if delta.get("reasoning_content"):
                out += self._grow("thinking", delta["reasoning_content"])
            if delta.get("content"):
                out += self._grow("text", delta["content"])
            for piece in objects_at(delta, "tool_calls"):
                out += self._grow_call(piece)
            self._finish_reason = choice.get("finish_reason") or self._finish_reason
        self._note_end(chunk)
        return out

    def _note_end(self, chunk: Json) -> None:
        usage = as_object(chunk.get("usage"))
        if usage is not None:
            cached = object_at(usage, "prompt_tokens_details").get("cached_tokens") or 0
            self._message["usage"] = _usage(usage["prompt_tokens"], cached, usage["completion_tokens"])
        details = as_object(chunk.get("__verbose")) or {}
        if details.get("stopping_word"):
            self._message["stop_sequence"] = details["stopping_word"]

    def finish(self) -> bytes:
        out = self._begin() + self._close()
        reason = STOP_REASONS.get(self._finish_reason or "stop", "end_turn")
        if self._message["stop_sequence"] and reason == "end_turn":
            reason = "stop_sequence"
        self._message["stop_reason"] = reason
        delta = {"stop_reason": reason, "stop_sequence": self._message["stop_sequence"]}
        out += _event("message_delta", {"delta": delta, "usage": self._message["usage"]})
        return out + _event("message_stop", {})

    def failure(self, error: MeshError) -> bytes:
        return encode(anthropic_shape(error), "error")

    def answer(self) -> Json:
        return self._message

    def _begin(self) -> bytes:
        if self._begun:
            return b""
        self._begun = True
        return _event("message_start", {"message": self._message})

    def _add(self, block: Json) -> bytes:
        out = self._close()
        self._message["content"].append(block)
        self._pieces, self._is_open = [], True
        return out + _event("content_block_start", {"index": self._index(), "content_block": block})

    def _index(self) -> int:
        return len(self._message["content"]) - 1

    def _delta(self, delta: Json) -> bytes:
        return _event("content_block_delta", {"index": self._index(), "delta": delta})

    def _is_at(self, kind: str) -> bool:
        return self._is_open and self._message["content"][-1]["type"] == kind

    def _grow(self, kind: str, piece: str) -> bytes:
        out = b""
        if not self._is_at(kind):
            fresh: Json = {"type": kind, kind: ""}
            out = self._add(fresh | {"signature": ""} if kind == "thinking" else fresh)
        self._pieces.append(piece)
        return out + self._delta({"type": f"{kind}_delta", kind: piece})

    def _grow_call(self, piece: Json) -> bytes:
        out = b""
        function = object_at(piece, "function")
        index = int(piece.get("index") or 0)
        if not self._is_at("tool_use") or index != self._call_index:
            self._call_index = index
            identity = piece.get("id") or self._identify("toolu_")
            out = self._add(
                {"type": "tool_use", "id": identity, "name": function.get("name") or "", "input": {}}
            )
        arguments = function.get("arguments")
        if arguments:
            self._pieces.append(arguments)
            out += self._delta({"type": "input_json_delta", "partial_json": arguments})
        return out

    def _close(self) -> bytes:
        if not self._is_open:
            return b""
        self._is_open = False
        block = self._message["content"][-1]
        whole = "".join(self._pieces)
        if block["type"] == "tool_use":
            block["input"] = _arguments(whole)
        else:
            block[block["type"]] = whole
        return _event("content_block_stop", {"index": self._index()})


def _arguments(written: str) -> Json:
    """Arguments cut short by max_tokens are no JSON: the stop reason tells."""
    try:
        return as_object(json.loads(written or "{}")) or {}
    except ValueError:
        return {}


def _usage(prompt_tokens: int, cached: int, completion_tokens: int) -> Json:
    """Anthropic counts what came from the cache apart from the rest of the input."""
    return {
        "input_tokens": prompt_tokens - cached,
        "cache_creation_input_tokens": 0,
        "cache_read_input_tokens": cached,
        "output_tokens": completion_tokens,
    }


def _event(kind: str, fields: Json) -> bytes:
    return encode({"type": kind} | fields, kind)
