"""The prompts of a completion request in tokens: a text, token numbers, both mixed, or several of these.
Pure.

Counterpart: `tokenize_input_prompts` of llama-server's server-common.cpp.
"""

from collections.abc import Callable
from typing import Any, cast

from mesh_llm.core.errors import RequestRefused

Cut = Callable[[str, bool], list[int]]
"""A text into tokens; whether with what the vocabulary puts at its beginning and end."""

PROMPTS_MAX = 256


def read_prompts(value: Any, tokens: int, cut: Cut) -> list[list[int]]:
    """`tokens` is the size of the vocabulary. Raises RequestRefused."""
    if isinstance(value, list):
        several = cast(list[Any], value)
        if not several:
            raise RequestRefused('"prompt" must not be empty', parameter="prompt")
        if len(several) > PROMPTS_MAX and not any(_is_number(part) for part in several):
            raise RequestRefused(
                f"More than {PROMPTS_MAX} prompts are too many. Send them in several requests.",
                code="invalid_value",
                parameter="prompt",
            )
        if not any(_is_number(part) for part in several):
            return [_prompt(one, tokens, cut) for one in several]
    return [_prompt(value, tokens, cut)]


def _prompt(value: Any, tokens: int, cut: Cut) -> list[int]:
    if isinstance(value, str):
        return cut(value, True)
    if not isinstance(value, list):
        raise _refusal()
    prompt: list[int] = []
    for place, part in enumerate(cast(list[Any], value)):
        if isinstance(part, str):
            prompt += cut(part, place == 0)
        elif _is_number(part):
            prompt.append(checked(part, tokens, "prompt"))
        else:
            raise _refusal()
    return prompt


def checked(token: int, tokens: int, parameter: str) -> int:
    """Raises RequestRefused."""
    if not 0 <= token < tokens:
        raise RequestRefused(
            f"`{parameter}` has a token that does not exist: there are {tokens}.",
            code="invalid_value",
            parameter=parameter,
        )
    return token


def _is_number(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _refusal() -> RequestRefused:
    return RequestRefused(
        '"prompt" must be a string, a list of tokens, a list of both, or a list of these.',
        code="invalid_type",
        parameter="prompt",
    )
