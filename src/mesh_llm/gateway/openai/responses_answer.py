"""Chat chunks into the events and the final object of `/v1/responses`.

A response is a row of output items: reasoning, a message, function calls. At most one is open; the next
one closes it. Every event carries its place (output_index, content_index) and its number.
"""

import re
from typing import Any

from mesh_llm.core.errors import MeshError
from mesh_llm.gateway.errors import openai_shape
from mesh_llm.gateway.exchange import Identify
from mesh_llm.gateway.json_values import Json, as_list, as_object, object_at, objects_at, parse_object
from mesh_llm.gateway.sse import EventReader, encode

ECHOED = (
    "instructions",
    "max_output_tokens",
    "metadata",
    "reasoning",
    "temperature",
    "text",
    "top_p",
    "user",
)


class ResponsesWriter:
    def __init__(self, request: Json, model: str, identify: Identify, now: int) -> None:
        self._identify = identify
        self._number = 0
        self._output: list[Json] = []
        self._text: list[str] = []
        self._scores: list[Any] = []
        self._call_index: int | None = None
        self._finish_reason: str | None = None
        self._response: Json = {
            "id": identify("resp_"),
            "object": "response",
            "created_at": now,
            "status": "in_progress",
            "model": model,
            "output": [],
            "error": None,
            "incomplete_details": None,
            "usage": None,
            "store": False,
            "parallel_tool_calls": request.get("parallel_tool_calls") is not False,
            "tool_choice": request.get("tool_choice") or "auto",
            "tools": objects_at(request, "tools"),
            **{name: request.get(name) for name in ECHOED},
        }
        self._begun = False

    def feed(self, chunk: Json) -> bytes:
        out = self._begin()
        for choice in objects_at(chunk, "choices"):
            delta = object_at(choice, "delta")
            if delta.get("reasoning_content"):
                out += self._grow_text("reasoning", delta["reasoning_content"], [])
            if delta.get("content"):
                scores = as_list((as_object(choice.get("logprobs")) or {}).get("content")) or []
                out += self._grow_text("message", delta["content"], scores)
            for piece in objects_at(delta, "tool_calls"):
                out += self._grow_call(piece)
            self._finish_reason = choice.get("finish_reason") or self._finish_reason
        usage = as_object(chunk.get("usage"))
        if usage is not None:
            self._response["usage"] = _usage(usage)
        return out

    def finish(self) -> bytes:
        cut_short = self._finish_reason == "length"
        status = "incomplete" if cut_short else "completed"
        out = self._begin() + self._close(status)
        self._response |= {"status": status, "output": self._output}
        if cut_short:
            self._response["incomplete_details"] = {"reason": "max_output_tokens"}
        return out + self._event(f"response.{status}", {"response": self._response})

    def failure(self, error: MeshError) -> bytes:
        shape = openai_shape(error)["error"]
        told = {"code": shape["code"] or shape["type"], "message": shape["message"], "param": shape["param"]}
        self._response |= {"status": "failed", "output": self._output}
        self._response["error"] = {"code": "server_error", "message": shape["message"]}
        return self._event("error", told) + self._event("response.failed", {"response": self._response})

    def fail_as(self, response: Json, number: int, error: MeshError) -> bytes:
        """As `failure`, for a response that another writer began, with the events from `number` on."""
        self._response |= response
        self._number = number
        return self.failure(error)

    def answer(self) -> Json:
        return self._response

    def _event(self, kind: str, fields: Json) -> bytes:
        event = {"type": kind, "sequence_number": self._number} | fields
        self._number += 1
        return encode(event, kind)

    def _begin(self) -> bytes:
        if self._begun:
            return b""
        self._begun = True
        fields = {"response": self._response}
        return self._event("response.created", fields) + self._event("response.in_progress", fields)

    @property
    def _open(self) -> Json | None:
        last = self._output[-1] if self._output else None
        return last if last is not None and last["status"] == "in_progress" else None

    def _place(self) -> Json:
        return {"item_id": self._output[-1]["id"], "output_index": len(self._output) - 1}

    def _add(self, item: Json) -> bytes:
        out = self._close("completed")
        self._output.append(item | {"status": "in_progress"})
        self._text, self._scores = [], []
        place = {"output_index": len(self._output) - 1}
        return out + self._event("response.output_item.added", place | {"item": self._output[-1]})

    def _grow_text(self, kind: str, piece: str, scores: list[Any]) -> bytes:
        out = b"" if self._open and self._open["type"] == kind else self._add_text(kind)
        self._text.append(piece)
        self._scores += scores
        fields = self._place() | {"content_index": 0, "delta": piece}
        if kind == "message":
            fields["logprobs"] = scores
        return out + self._event(f"response.{_text_kind(kind)}.delta", fields)

    def _add_text(self, kind: str) -> bytes:
        if kind == "message":
            item: Json = {"type": kind, "id": self._identify("msg_"), "role": "assistant", "content": []}
        else:
            item = {"type": kind, "id": self._identify("rs_"), "summary": [], "content": []}
        out = self._add(item)
        fields = self._place() | {"content_index": 0, "part": _part(kind, "", [])}
        return out + self._event("response.content_part.added", fields)

    def _grow_call(self, piece: Json) -> bytes:
        out = b""
        function = object_at(piece, "function")
        index = int(piece.get("index") or 0)
        if self._open is None or self._open["type"] != "function_call" or index != self._call_index:
            self._call_index = index
            call_id = piece.get("id") or self._identify("call_")
            item = {"type": "function_call", "id": self._identify("fc_"), "call_id": call_id}
            out += self._add(item | {"name": function.get("name") or "", "arguments": ""})
        arguments = function.get("arguments")
        if arguments:
            self._text.append(arguments)
            out += self._event("response.function_call_arguments.delta", self._place() | {"delta": arguments})
        return out

    def _close(self, status: str) -> bytes:
        """Ends the open item with this status."""
        item = self._open
        if item is None:
            return b""
        item["status"] = status
        whole, place = "".join(self._text), self._place()
        if item["type"] == "function_call":
            item["arguments"] = whole
            fields = place | {"name": item["name"], "arguments": whole}
            out = self._event("response.function_call_arguments.done", fields)
        else:
            out = self._close_text(item, whole, place | {"content_index": 0})
        return out + self._event(
            "response.output_item.done", {"output_index": place["output_index"], "item": item}
        )

    def _close_text(self, item: Json, whole: str, place: Json) -> bytes:
        kind = item["type"]
        part = _part(kind, whole, self._scores)
        item["content"] = [part]
        fields = place | {"text": whole}
        if kind == "message":
            fields["logprobs"] = self._scores
        done = self._event(f"response.{_text_kind(kind)}.done", fields)
        return done + self._event("response.content_part.done", place | {"part": part})


def _text_kind(kind: str) -> str:
    return "output_text" if kind == "message" else "reasoning_text"


def _part(kind: str, whole: str, scores: list[Any]) -> Json:
    if kind == "message":
        return {"type": "output_text", "text": whole, "annotations": [], "logprobs": scores}
    return {"type": "reasoning_text", "text": whole}


def _usage(usage: Json) -> Json:
    cached = object_at(usage, "prompt_tokens_details").get("cached_tokens") or 0
    return {
        "input_tokens": usage["prompt_tokens"],
        "input_tokens_details": {"cached_tokens": cached},
        "output_tokens": usage["completion_tokens"],
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": usage["total_tokens"],
    }


NUMBERED = re.compile(rb'"sequence_number":(\d{1,15})')


def broken_off(start: bytes, end: bytes, error: MeshError) -> bytes:
    """The last events of a stream that somebody else wrote: of its first bytes and its last, as the client
    knows them. What it said in between stays said; the response does not repeat it."""
    numbers = [int(number) for number in NUMBERED.findall(end)]
    writer = ResponsesWriter({}, "", lambda prefix: prefix, 0)
    return writer.fail_as(_response_in(start), max(numbers, default=-1) + 1, error)


def _response_in(start: bytes) -> Json:
    """Of the first event; empty where that is not what a writer of ours begins with."""
    try:
        events = [event for event in EventReader().feed(start) if event.data]
        return object_at(parse_object(events[0].data), "response") if events else {}
    except MeshError:
        return {}
