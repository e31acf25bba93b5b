"""Fields of generating requests that an engine must not see, or would silently ignore."""

from typing import Any

from mesh_llm.core.errors import RequestRefused
from mesh_llm.gateway.json_values import Json, as_list, refuse, whole_number

ENGINE_CONTROLS = {
    "id_slot": "picks a slot of the engine",
    "lora": "changes adapters under other requests",
    "n_cmpl": "is `n` by another name",
    "response_fields": "changes the form of the engine's answer",
    "verbose": "makes the engine tell its settings",
    "sse_ping_interval": "changes how the engine keeps connections",
    "grammar_lazy": "is decided by the engine",
    "grammar_triggers": "is decided by the engine",
    "grammar_type": "is decided by the engine",
    "preserved_tokens": "is decided by the engine",
    "chat_format": "is decided by the engine",
    "chat_parser": "is decided by the engine",
    "parse_tool_calls": "is decided by the engine",
    "backend_sampling": "is decided by the engine",
    "reasoning_control": "is decided by the engine",
    "input_prefix": "belongs to infilling, which is not served",
    "input_suffix": "belongs to infilling, which is not served",
}
"""llama-server would act on these; here many clients share one engine."""

NUMBERS = (
    "temperature",
    "top_p",
    "min_p",
    "typical_p",
    "top_n_sigma",
    "xtc_probability",
    "xtc_threshold",
    "dynatemp_range",
    "dynatemp_exponent",
    "repeat_penalty",
    "frequency_penalty",
    "presence_penalty",
    "dry_multiplier",
    "dry_base",
    "mirostat_tau",
    "mirostat_eta",
)
WHOLE_NUMBERS = (
    "max_tokens",
    "max_completion_tokens",
    "n_predict",
    "top_k",
    "top_logprobs",
    "seed",
    "repeat_last_n",
    "min_keep",
    "mirostat",
    "dry_allowed_length",
    "dry_penalty_last_n",
)
"""Checked here, so that they are refused alike whoever would compute the answer, and with their name."""

HARMLESS_VALUES: tuple[Any, ...] = (None, -1, False, [], "")
"""What clients send that fill every field of a form: the same as leaving it out."""


def without_engine_controls(body: Json) -> Json:
    """The body without fields that steer the engine. Raises RequestRefused for one that means something."""
    for name, meaning in ENGINE_CONTROLS.items():
        if body.get(name) not in HARMLESS_VALUES:
            raise RequestRefused(
                f"`{name}` {meaning} and is not offered here. Leave it out.",
                code="unsupported_parameter",
                parameter=name,
            )
    internal = [name for name in body if name in ENGINE_CONTROLS or name.startswith(("__", "speculative."))]
    return {name: value for name, value in body.items() if name not in internal}


def refuse_meaningful(body: Json, name: str, cure: str) -> None:
    """For a field that the engine would ignore: better a no than a wrong answer."""
    if body.get(name) not in (None, False, [], {}, ""):
        raise RequestRefused(
            f"`{name}` is not supported. {cure}", code="unsupported_parameter", parameter=name
        )


def check_numbers(body: Json) -> None:
    """A whole number may be written as a float: programs do."""
    for name in (*NUMBERS, *WHOLE_NUMBERS):
        value = body.get(name)
        if value is None:
            continue
        if not isinstance(value, int | float) or isinstance(value, bool):
            refuse(name, "a number")
        if name in WHOLE_NUMBERS and value != value // 1:
            refuse(name, "a whole number")


def choices_wanted(body: Json) -> int:
    return whole_number(body, "n", least=1) or 1


def check_stop(body: Json) -> None:
    stop = body.get("stop")
    if stop is None or isinstance(stop, str):
        return
    words = as_list(stop)
    if words is None or not all(isinstance(word, str) for word in words):
        refuse("stop", "a string or a list of strings")
