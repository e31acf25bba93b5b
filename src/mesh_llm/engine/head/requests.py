"""Bodies of generating requests, checked: what llama-server's `make_llama_cmpl_schema` (server-schema.cpp)
reads, with its names, bounds and defaults. Pure.
"""

from typing import Any, NoReturn, TypeVar

import msgspec

from mesh_llm.core.errors import RequestRefused
from mesh_llm.engine.llama.samplers import NEVER, Sampling

Body = dict[str, Any]

SEEDS = 2**32 - 1
"""Of 32 bits; the last one is llama.cpp's word for a drawn one (LLAMA_DEFAULT_SEED)."""

STOPS_MAX = 64
STOP_CHARACTERS_MAX = 1000
BIASES_MAX = 4096

NUMBER_MAX = 1e9
"""Of any number with a fraction: what llama.cpp makes infinite of it ends in NaN, and that in an abort."""

PENALTY_MIN = 1e-6
"""Its reciprocal must be finite."""

TEMPERATURE_MIN = 1e-6
"""A lower one divides logits beyond all floats, and would always draw the likeliest anyway."""

REPEAT_LAST_MAX = 65_536
"""llama.cpp takes memory for all of them at once."""

Bias = float | bool


class StreamOptions(msgspec.Struct):
    include_usage: bool | None = None


class Fields(msgspec.Struct, kw_only=True):
    """Null and absent are the same: the default."""

    stream: bool | None = None
    stream_options: StreamOptions | None = None
    n_predict: int | None = None
    max_completion_tokens: int | None = None
    max_tokens: int | None = None
    stop: str | list[str] | None = None
    seed: int | None = None
    temperature: float | None = None
    dynatemp_range: float | None = None
    dynatemp_exponent: float | None = None
    top_k: int | None = None
    top_p: float | None = None
    min_p: float | None = None
    typical_p: float | None = None
    top_n_sigma: float | None = None
    xtc_probability: float | None = None
    xtc_threshold: float | None = None
    min_keep: int | None = None
    repeat_last_n: int | None = None
    repeat_penalty: float | None = None
    frequency_penalty: float | None = None
    presence_penalty: float | None = None
    ignore_eos: bool | None = None
    logit_bias: dict[str, Bias] | list[tuple[int | str, Bias]] | None = None
    add_generation_prompt: bool | None = None
    chat_template_kwargs: dict[str, Any] | None = None

    @property
    def includes_usage(self) -> bool:
        return self.stream_options is not None and bool(self.stream_options.include_usage)

    @property
    def stops(self) -> tuple[str, ...]:
        given = [self.stop] if isinstance(self.stop, str) else self.stop or []
        return tuple(stop for stop in given if stop)

    @property
    def tokens_max(self) -> int | None:
        """None: until the model ends by itself."""
        asked = (self.n_predict, self.max_completion_tokens, self.max_tokens)
        told = next((value for value in asked if value is not None), -1)
        return None if told == -1 else told


class Tokenize(msgspec.Struct):
    content: str
    add_special: bool = False
    parse_special: bool = True
    with_pieces: bool = False


class Detokenize(msgspec.Struct):
    tokens: list[int]


S = TypeVar("S", bound=msgspec.Struct)


def read_object(body: bytes) -> Body:
    """Raises RequestRefused."""
    try:
        return msgspec.json.decode(body, type=dict[str, Any])
    except (msgspec.DecodeError, msgspec.ValidationError, RecursionError) as error:
        raise RequestRefused(f"The body is not a JSON object ({error}).", code="invalid_json") from None


def read_fields(body: Body) -> Fields:
    """Raises RequestRefused."""
    fields = read_as(body, Fields)
    _check_finite(fields)
    _check_limits(fields)
    return fields


def read_as(body: Body, kind: type[S]) -> S:
    """Raises RequestRefused with the name of the field."""
    try:
        return msgspec.convert(body, kind)
    except msgspec.ValidationError as error:
        raise RequestRefused(f"A field is not what it must be: {error}.", code="invalid_type") from None


def _check_finite(fields: Fields) -> None:
    for name in fields.__struct_fields__:
        value = getattr(fields, name)
        if isinstance(value, float) and not -NUMBER_MAX <= value <= NUMBER_MAX:
            _refuse(name, f"a number of at most {NUMBER_MAX:.0f}")


def _check_limits(fields: Fields) -> None:
    tokens_max = fields.tokens_max
    if tokens_max is not None and tokens_max < 0:
        _refuse("max_tokens", "0 or more, or -1 for no limit")
    if fields.repeat_penalty is not None and fields.repeat_penalty < PENALTY_MIN:
        _refuse("repeat_penalty", "greater than 0")
    for name in ("repeat_last_n", "min_keep"):
        value = getattr(fields, name)
        if value is not None and not 0 <= value < 2**31:
            _refuse(name, "0 or more")
    if len(fields.stops) > STOPS_MAX or any(len(stop) > STOP_CHARACTERS_MAX for stop in fields.stops):
        _refuse("stop", f"at most {STOPS_MAX} strings of {STOP_CHARACTERS_MAX} characters")
    if len(fields.logit_bias or ()) > BIASES_MAX:
        _refuse("logit_bias", f"of at most {BIASES_MAX} tokens")


def _refuse(parameter: str, expected: str) -> NoReturn:
    raise RequestRefused(f"`{parameter}` must be {expected}.", code="invalid_value", parameter=parameter)


def sampling_of(fields: Fields, seed: int, biases: tuple[tuple[int, float], ...]) -> Sampling:
    """`seed` where the request names none; `biases` are already in tokens. Numbers out of range are brought
    into it, as llama-server does."""
    usual = Sampling()
    temperature = _or(fields.temperature, usual.temperature)
    asked = fields.seed if fields.seed is not None and fields.seed >= 0 else seed
    return Sampling(
        seed=asked % SEEDS,
        temperature=temperature if temperature >= TEMPERATURE_MIN else 0.0,
        dynamic_range=_or(fields.dynatemp_range, usual.dynamic_range),
        dynamic_exponent=_or(fields.dynatemp_exponent, usual.dynamic_exponent),
        top_k=min(max(0, _or(fields.top_k, usual.top_k)), 2**31 - 1),
        top_p=_share(fields.top_p, usual.top_p),
        min_p=_share(fields.min_p, usual.min_p),
        typical_p=_or(fields.typical_p, usual.typical_p),
        top_n_sigma=_or(fields.top_n_sigma, usual.top_n_sigma),
        xtc_probability=_share(fields.xtc_probability, usual.xtc_probability),
        xtc_threshold=_share(fields.xtc_threshold, usual.xtc_threshold),
        keep_min=_or(fields.min_keep, usual.keep_min),
        repeat_last=min(_or(fields.repeat_last_n, usual.repeat_last), REPEAT_LAST_MAX),
        repeat_penalty=_or(fields.repeat_penalty, usual.repeat_penalty),
        frequency_penalty=_or(fields.frequency_penalty, usual.frequency_penalty),
        presence_penalty=_or(fields.presence_penalty, usual.presence_penalty),
        biases=biases,
    )


N = TypeVar("N", int, float)


def _or(value: N | None, usual: N) -> N:
    return usual if value is None else value


def _share(value: float | None, usual: float) -> float:
    return min(1.0, max(0.0, _or(value, usual)))


def biases_in(fields: Fields) -> list[tuple[int | str, float]]:
    """(token number or text, bias): of a text all its tokens are meant. False bans."""
    given = fields.logit_bias or []
    pairs = list(given.items()) if isinstance(given, dict) else given
    return [
        (_token(key), NEVER if bias is False else _bound(bias)) for key, bias in pairs if bias is not True
    ]


def _bound(bias: float) -> float:
    return min(NUMBER_MAX, max(-NUMBER_MAX, float(bias)))


def _token(key: int | str) -> int | str:
    return int(key) if isinstance(key, str) and key.isdecimal() else key
