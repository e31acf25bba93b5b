"""How a refusal looks in each dialect, and what an engine's own refusals mean.

Engines report a caller's mistake as 500 or 501 in places (llama-server: an image without a projector, a
message without a role, a template that raises); clients must see 400 there, else they retry for ever.
"""

import json

from mesh_llm.core.errors import EngineFailed, MeshError, RequestRefused, Unavailable
from mesh_llm.gateway.json_values import Json, as_object

CALLERS_MISTAKES = (
    "not supported",
    "unsupported",
    "unknown",
    "is required",
    "must be",
    "failed to parse",
    "parse error",
    "too large to process",
    "template",
    "roles must alternate",
    "range_check",
    "invalid",
)
"""Found in the text of llama-server's 500 and 501 answers to requests that no second try can save."""

CONTEXT_IS_FULL = "context size has been exceeded"
"""llama-server's words (server-context.cpp), to all under way, when their answers together have outgrown the
context that they share."""

RETRY_AFTER_S = 2
"""Where an engine that is not ready does not say itself when it will be."""

RETRY_AFTER_S_MAX = 3600

ANTHROPIC_TYPES = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    405: "invalid_request_error",
    413: "request_too_large",
    503: "overloaded_error",
}


class EngineRefused(RequestRefused):
    """The engine found fault with the request; `details` are the numbers it gave."""

    def __init__(
        self,
        message: str,
        *,
        code: str | None = None,
        parameter: str | None = None,
        details: Json | None = None,
    ) -> None:
        super().__init__(message, code=code, parameter=parameter)
        self.details = details or {}


def openai_shape(error: MeshError) -> Json:
    shape: Json = {"message": str(error), "type": error.kind, "param": None, "code": error.code}
    if isinstance(error, RequestRefused):
        shape["param"] = error.parameter
    if isinstance(error, EngineRefused):
        shape |= error.details
    return {"error": shape}


def anthropic_shape(error: MeshError) -> Json:
    shape: Json = {"type": ANTHROPIC_TYPES.get(error.http_status, "api_error"), "message": str(error)}
    if isinstance(error, EngineRefused):
        shape |= error.details
    return {"type": "error", "error": shape}


def read_engine_error(status: int, body: bytes) -> MeshError:
    """The meaning of an engine's answer other than 200.

    llama-server's `code` is the HTTP status. A head says in `param`, `error_code` and `retry_after` what
    llama-server has no words for; external servers have a `code` in words, as OpenAI does.
    """
    if 300 <= status < 400:
        return EngineFailed(
            f"The engine redirects requests (HTTP {status}) and is not followed: give --endpoint the address "
            "that it redirects to."
        )
    error = _error_of(body)
    message = str(error.get("message") or body[:500].decode(errors="replace") or "no reason given")
    if error.get("type") == "exceed_context_size_error":
        details = {key: error[key] for key in ("n_prompt_tokens", "n_ctx") if key in error}
        return EngineRefused(message, code="context_length_exceeded", details=details)
    if status == 503:
        return Unavailable(
            f"The engine is not ready: {message.rstrip('.')}. Try again.", retry_after_s=_wait(error)
        )
    if CONTEXT_IS_FULL in message.lower():
        return Unavailable(
            "The answers under way have outgrown the context that they share and were broken off. Try again, "
            "with a smaller max_tokens, or start the model with a larger --ctx-size.",
            retry_after_s=RETRY_AFTER_S,
        )
    if status in (400, 413, 422) or any(mistake in message.lower() for mistake in CALLERS_MISTAKES):
        return EngineRefused(
            message, code=_word(error, "error_code", "code"), parameter=_word(error, "param")
        )
    return EngineFailed(f"The engine answered with status {status}: {message}")


def read_stream_error(error: Json) -> MeshError:
    """The meaning of an `error` object inside an engine's event stream."""
    code = error.get("code")
    return read_engine_error(code if isinstance(code, int) else 500, json.dumps({"error": error}).encode())


def _word(error: Json, *names: str) -> str | None:
    return next((error[name] for name in names if isinstance(error.get(name), str)), None)


def _wait(error: Json) -> int:
    told = error.get("retry_after")
    return told if type(told) is int and 0 < told <= RETRY_AFTER_S_MAX else RETRY_AFTER_S


def _error_of(body: bytes) -> Json:
    try:
        answer = as_object(json.loads(body))
    except ValueError:
        return {}
    return as_object((answer or {}).get("error")) or {}
