"""Answers in the form that llama-server gives them: chunks of a stream, and whole. Pure.

Counterpart: `to_json_oaicompat*` of llama-server's server-task.cpp; the gateway passes streams on unread.
"""

from typing import Any, Literal

import msgspec

from mesh_llm.core.errors import MeshError, RequestRefused, Unavailable
from mesh_llm.engine.head.generation import Ended, Timings

Json = dict[str, Any]
Route = Literal["chat", "text"]

DONE = b"data: [DONE]\n\n"

_encoder = msgspec.json.Encoder()


def dump(value: Json) -> bytes:
    return _encoder.encode(value)


def event(value: Json) -> bytes:
    return b"data: " + dump(value) + b"\n\n"


class AnswerForm:
    """Of one answer."""

    def __init__(self, route: Route, model: str, identity: str, created: int) -> None:
        """`identity` is drawn, `created` in seconds since 1970."""
        self._route: Route = route
        self._frame: Json = {"created": created, "id": identity, "model": model}

    def begin(self) -> bytes:
        """Before the first words."""
        if self._route == "text":
            return b""
        return event(self._chunk([self._delta({"role": "assistant", "content": None}, None)]))

    def text(self, text: str) -> bytes:
        if self._route == "text":
            return event(self._chunk([self._text_choice(text, None)]))
        return event(self._chunk([self._delta({"content": text}, None)]))

    def end(self, ended: Ended, *, include_usage: bool) -> bytes:
        """All that follows the last words. Counts are in the last chunk in any case (`timings`)."""
        last = self._chunk(
            [self._text_choice("", ended.reason) if self._route == "text" else self._delta({}, ended.reason)]
        )
        timings = timings_json(ended.timings)
        if self._route == "text":
            return event(last | {"usage": usage_json(ended.timings), "timings": timings}) + DONE
        if not include_usage:
            return event(last | {"timings": timings}) + DONE
        usage = self._chunk([]) | {"usage": usage_json(ended.timings), "timings": timings}
        return event(last) + event(usage) + DONE

    def whole(self, text: str, ended: Ended) -> bytes:
        if self._route == "text":
            kind, choice = "text_completion", self._text_choice(text, ended.reason)
        else:
            message = {"role": "assistant", "content": text}
            kind = "chat.completion"
            choice = {"finish_reason": ended.reason, "index": 0, "message": message}
        counts = {"usage": usage_json(ended.timings), "timings": timings_json(ended.timings)}
        return dump({"choices": [choice], "object": kind} | self._frame | counts)

    def _chunk(self, choices: list[Json]) -> Json:
        kind = "text_completion" if self._route == "text" else "chat.completion.chunk"
        return {"choices": choices, "object": kind} | self._frame

    @staticmethod
    def _delta(delta: Json, reason: str | None) -> Json:
        return {"finish_reason": reason, "index": 0, "delta": delta}

    @staticmethod
    def _text_choice(text: str, reason: str | None) -> Json:
        return {"text": text, "index": 0, "logprobs": None, "finish_reason": reason}


def usage_json(timings: Timings) -> Json:
    return {
        "completion_tokens": timings.answer_tokens,
        "prompt_tokens": timings.prompt_tokens,
        "total_tokens": timings.prompt_tokens + timings.answer_tokens,
        "prompt_tokens_details": {"cached_tokens": 0},
    }


def timings_json(timings: Timings) -> Json:
    prompt_ms, answer_ms = timings.prompt_milliseconds, timings.answer_milliseconds
    return {
        "cache_n": 0,
        "prompt_n": timings.prompt_tokens,
        "prompt_ms": prompt_ms,
        "prompt_per_token_ms": prompt_ms / max(1, timings.prompt_tokens),
        "prompt_per_second": 1e3 * timings.prompt_tokens / prompt_ms if prompt_ms else 0.0,
        "predicted_n": timings.answer_tokens,
        "predicted_ms": answer_ms,
        "predicted_per_token_ms": answer_ms / max(1, timings.answer_tokens),
        "predicted_per_second": 1e3 * timings.answer_tokens / answer_ms if answer_ms else 0.0,
    }


class ContextExceeded(RequestRefused):
    def __init__(self, prompt_tokens: int, context: int) -> None:
        super().__init__(
            f"request ({prompt_tokens} tokens) exceeds the available context size ({context} tokens), "
            "try increasing it"
        )
        self.prompt_tokens = prompt_tokens
        self.context = context


def error_json(error: MeshError) -> Json:
    """llama-server's shape (format_error_response), where `code` is the status. What our refusals say beyond
    that stands beside it: `param`, `error_code`, `retry_after`; `gateway/errors.py` reads them."""
    if isinstance(error, ContextExceeded):
        return _error(400, str(error), "exceed_context_size_error") | {
            "n_prompt_tokens": error.prompt_tokens,
            "n_ctx": error.context,
        }
    kinds = {401: "authentication_error", 404: "not_found_error", 503: "unavailable_error"}
    return _error(error.http_status, str(error), kinds.get(error.http_status, error.kind)) | _beyond(error)


def _beyond(error: MeshError) -> Json:
    if isinstance(error, Unavailable):
        return {"retry_after": error.retry_after_s}
    if not isinstance(error, RequestRefused):
        return {}
    told = {"param": error.parameter, "error_code": error.code}
    return {name: value for name, value in told.items() if value is not None}


def _error(status: int, message: str, kind: str) -> Json:
    return {"code": status, "message": message, "type": kind}
