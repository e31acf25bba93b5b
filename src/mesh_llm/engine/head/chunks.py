"""Answers in the form that llama-server gives them: chunks of a stream, and whole. Pure.

Counterpart: `to_json_oaicompat*` of llama-server's server-task.cpp; the gateway passes streams on unread.
"""

import codecs
import math
from collections.abc import Callable, Iterable
from typing import Any, Literal

import msgspec

from mesh_llm.core.errors import MeshError, RequestRefused, Unavailable
from mesh_llm.engine.head.generation import Scored, Timings
from mesh_llm.engine.head.parsing.deltas import CallArguments, CallBegin, Content, Delta, Reasoning

Json = dict[str, Any]
Route = Literal["chat", "text"]

DONE = b"data: [DONE]\n\n"

LOWEST = -3.4028234663852886e38
"""The lowest float32."""

FINGERPRINT = "b0-unknown"
"""llama_build_info() of the engine that is installed: its wheels do not say which build they are."""

_encoder = msgspec.json.Encoder()


def dump(value: Json) -> bytes:
    return _encoder.encode(value)


def event(value: Json) -> bytes:
    return b"data: " + dump(value) + b"\n\n"


class Message:
    """What a choice of a chat has said, as it comes together."""

    def __init__(self) -> None:
        self._content: list[str] = []
        self._reasoning: list[str] = []
        self._calls: list[Json] = []

    @property
    def content(self) -> str:
        return "".join(self._content)

    @property
    def has_calls(self) -> bool:
        return bool(self._calls)

    def add_all(self, deltas: Iterable[Delta]) -> None:
        for delta in deltas:
            self.add(delta)

    def add(self, delta: Delta) -> None:
        match delta:
            case Content(text):
                self._content.append(text)
            case Reasoning(text):
                self._reasoning.append(text)
            case CallBegin(_, identity, name):
                function = {"name": name, "arguments": ""}
                self._calls.append({"type": "function", "function": function, "id": identity})
            case CallArguments(index, text):
                self._calls[index]["function"]["arguments"] += text

    def as_json(self) -> Json:
        """common_chat_msg::to_json_oaicompat"""
        message: Json = {"role": "assistant", "content": self.content}
        if self._reasoning:
            message["reasoning_content"] = "".join(self._reasoning)
        if self._calls:
            message["tool_calls"] = self._calls
        return message


class AnswerForm:
    """Of all choices of one answer; each is told in a stream as llama-server does, with its own counts."""

    def __init__(
        self,
        route: Route,
        model: str,
        identity: str,
        created: int,
        *,
        prompt_told: int | None = None,
        is_verbose: bool = False,
    ) -> None:
        """`identity` is drawn, `created` in seconds since 1970. `prompt_told`: the prompt's length, where the
        first chunk is to tell it (`return_progress`)."""
        self.route: Route = route
        self._frame: Json = {
            "created": created,
            "id": identity,
            "model": model,
            "system_fingerprint": FINGERPRINT,
        }
        self._progress: Json = (
            {}
            if prompt_told is None
            else {"prompt_progress": {"total": prompt_told, "processed": prompt_told}}
        )
        self._is_verbose = is_verbose

    def begin(self, index: int) -> bytes:
        """Before the first words."""
        if self.route == "text":
            return b""
        return event(
            self._chunk([_delta(index, {"role": "assistant", "content": None}, None)]) | self._progress
        )

    def text(self, index: int, text: str, scores: list[Json]) -> bytes:
        return event(self._chunk([_text_choice(index, text, None, scores)]))

    def delta(self, index: int, delta: Delta, scores: list[Json]) -> bytes:
        return event(self._chunk([_delta(index, delta_json(delta), None) | _scored(scores)]))

    def end(self, index: int, reason: str, timings: Timings, *, include_usage: bool, stop: str = "") -> bytes:
        """All that follows a choice's last words, which `stop` has ended if it is not empty. Counts are in
        the last chunk in any case (`timings`)."""
        usage = {"usage": usage_json(timings), "timings": timings_json(timings)}
        verbose = {"__verbose": {"stop": True, "stopping_word": stop}} if self._is_verbose else {}
        if self.route == "text":
            return event(self._chunk([_text_choice(index, "", reason, [])]) | usage | verbose)
        last = self._chunk([_delta(index, {}, reason)]) | verbose
        if not include_usage:
            return event(last | {"timings": timings_json(timings)})
        return event(last) + event(self._chunk([]) | usage)

    def whole(self, choices: list[Json], timings: Timings) -> bytes:
        kind = "text_completion" if self.route == "text" else "chat.completion"
        counts = {"usage": usage_json(timings), "timings": timings_json(timings)}
        return dump({"choices": choices, "object": kind} | self._frame | counts)

    def choice(self, index: int, message: Message, reason: str, scores: list[Json]) -> Json:
        """Of a whole answer."""
        if self.route == "text":
            return _text_choice(index, message.content, reason, scores)
        told: Json = {"finish_reason": reason, "index": index, "message": message.as_json()}
        return told | _scored(scores)

    def _chunk(self, choices: list[Json]) -> Json:
        kind = "text_completion" if self.route == "text" else "chat.completion.chunk"
        return {"choices": choices, "object": kind} | self._frame


def _delta(index: int, delta: Json, reason: str | None) -> Json:
    return {"finish_reason": reason, "index": index, "delta": delta}


def _text_choice(index: int, text: str, reason: str | None, scores: list[Json]) -> Json:
    logprobs = {"content": scores} if scores else None
    return {"text": text, "index": index, "logprobs": logprobs, "finish_reason": reason}


def _scored(scores: list[Json]) -> Json:
    return {"logprobs": {"content": scores}} if scores else {}


def delta_json(delta: Delta) -> Json:
    """server_chat_msg_diff_to_json_oaicompat"""
    match delta:
        case Content(text):
            return {"content": text}
        case Reasoning(text):
            return {"reasoning_content": text}
        case CallBegin(index, identity, name):
            function = {"name": name, "arguments": ""}
            return {
                "tool_calls": [{"index": index, "id": identity, "type": "function", "function": function}]
            }
        case CallArguments(index, text):
            return {"tool_calls": [{"index": index, "function": {"arguments": text}}]}


def score_json(text: str, scored: Scored, piece: Callable[[int], bytes], *, as_sampled: bool) -> Json:
    """completion_token_output::probs_vector_to_json; `text` is what the token told."""
    value, rivals = ("prob", "top_probs") if as_sampled else ("logprob", "top_logprobs")

    def one(token: int, said: bytes, share: float) -> Json:
        score = share if as_sampled else logarithm(share)
        return {"id": token, "token": _whole_text(said), "bytes": list(said), value: score}

    others = [one(token, piece(token), share) for token, share in scored.probabilities.likeliest]
    return one(scored.token, text.encode("utf-8", "replace"), scored.probabilities.chosen) | {rivals: others}


def _whole_text(said: bytes) -> str:
    """Without half a character at the end (validate_utf8)."""
    return codecs.getincrementaldecoder("utf-8")("replace").decode(said)


def logarithm(share: float) -> float:
    """Of nothing the lowest float32, for JSON has no infinity."""
    return math.log(share) if share > 0 else LOWEST


def usage_json(timings: Timings) -> Json:
    return {
        "completion_tokens": timings.answer_tokens,
        "prompt_tokens": timings.prompt_tokens,
        "total_tokens": timings.prompt_tokens + timings.answer_tokens,
        "prompt_tokens_details": {"cached_tokens": timings.cached_tokens},
    }


def timings_json(timings: Timings) -> Json:
    prompt_ms, answer_ms = timings.prompt_milliseconds, timings.answer_milliseconds
    computed = timings.prompt_tokens - timings.cached_tokens
    return {
        "cache_n": timings.cached_tokens,
        "prompt_n": computed,
        "prompt_ms": prompt_ms,
        "prompt_per_token_ms": prompt_ms / max(1, computed),
        "prompt_per_second": 1e3 * computed / prompt_ms if prompt_ms else 0.0,
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
