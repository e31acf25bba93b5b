"""What a split model does not serve yet, refused in one place: each entry goes when the feature comes.

Better a no than an answer that silently ignores half of the question.
"""

from collections.abc import Callable
from typing import Any, cast

from mesh_llm.core.errors import RequestRefused

Body = dict[str, Any]

EMPTY: tuple[Any, ...] = (None, False, [], {}, "")
"""The same as leaving it out."""


def _is_empty(value: Any) -> bool:
    return value in EMPTY


def _is_one(value: Any) -> bool:
    return value in (None, 1)


def _is_off(value: Any) -> bool:
    return value in (None, 0)


def _is_text(value: Any) -> bool:
    return _is_empty(value) or (
        isinstance(value, dict) and cast(Body, value).get("type") in ("text", "", None)
    )


FIELDS: dict[str, Callable[[Any], bool]] = {
    "grammar_lazy": _is_empty,
    "best_of": _is_one,
    "suffix": _is_empty,
    "lora": _is_empty,
    "n_indent": _is_off,
}
"""With the values that ask for nothing."""

COMPLETION_FIELDS: dict[str, Callable[[Any], bool]] = {
    "response_format": _is_text,
    "tools": _is_empty,
    "functions": _is_empty,
    "echo": _is_empty,
}
"""Of those who ask without a chat."""


def refuse_unserved(body: Body, *, is_chat: bool = False) -> None:
    """Raises RequestRefused for the first field that would have to be ignored."""
    for name, asks_for_nothing in (FIELDS if is_chat else FIELDS | COMPLETION_FIELDS).items():
        if name in body and not asks_for_nothing(body[name]):
            raise RequestRefused(
                f"`{name}` is not supported for a model that is split over several machines. Leave it out, "
                "or ask a model that one machine holds.",
                code="unsupported_parameter",
                parameter=name,
            )
