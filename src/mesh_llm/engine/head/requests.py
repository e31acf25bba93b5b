"""Bodies of generating requests, checked: what llama-server's `make_llama_cmpl_schema` (server-schema.cpp)
reads, with its names, bounds and defaults. Pure.
"""

from typing import Any, NoReturn, TypeVar

import msgspec

from mesh_llm.core.errors import RequestRefused
from mesh_llm.engine.llama.sampling import NEVER, Sampling, order_of

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

BREAKERS_MAX = 32
"""For each llama.cpp goes through the whole vocabulary, some hundredths of a second."""

SAMPLERS_MAX = 32

ADAPTIVE_DECAY_MAX = 0.99

RIVALS_MAX = 1000
"""Tokens told with each token; OpenAI's bound is 20, llama-server has none."""

RIVALS_USUAL = 20
"""Of a chat that asks for `logprobs` and does not say how many."""

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
    dry_multiplier: float | None = None
    dry_base: float | None = None
    dry_allowed_length: int | None = None
    dry_penalty_last_n: int | None = None
    dry_sequence_breakers: list[str] | None = None
    mirostat: int | None = None
    mirostat_tau: float | None = None
    mirostat_eta: float | None = None
    adaptive_target: float | None = None
    adaptive_decay: float | None = None
    samplers: str | list[str] | None = None
    n_probs: int | None = None
    logprobs: bool | int | None = None
    top_logprobs: int | None = None
    post_sampling_probs: bool | None = None
    n_cmpl: int | None = None
    n: int | None = None
    t_max_predict_ms: int | None = None
    cache_prompt: bool | None = None
    return_progress: bool | None = None
    verbose: bool | None = None
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

    @property
    def choices(self) -> int:
        """Answers to each prompt."""
        return next((value for value in (self.n_cmpl, self.n) if value is not None), 1)

    def rivals(self, *, is_chat: bool) -> int:
        """How many probabilities are told with each token; 0: none. Two dialects: OpenAI's chat says whether
        and, in another field, how many; all others say how many."""
        if is_chat and self.logprobs is True:
            return RIVALS_USUAL if self.top_logprobs is None else self.top_logprobs
        return int(next((value for value in (self.n_probs, self.logprobs) if value is not None), 0))


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


NOT_NEGATIVE = (
    "repeat_last_n",
    "min_keep",
    "dry_allowed_length",
    "dry_penalty_last_n",
)


def _check_limits(fields: Fields) -> None:
    tokens_max = fields.tokens_max
    if tokens_max is not None and tokens_max < 0:
        _refuse("max_tokens", "0 or more, or -1 for no limit")
    if fields.repeat_penalty is not None and fields.repeat_penalty < PENALTY_MIN:
        _refuse("repeat_penalty", "greater than 0")
    for name in NOT_NEGATIVE:
        value = getattr(fields, name)
        if value is not None and not 0 <= value < 2**31:
            _refuse(name, "0 or more")
    if fields.adaptive_decay is not None and not 0 <= fields.adaptive_decay <= ADAPTIVE_DECAY_MAX:
        _refuse("adaptive_decay", f"0 to {ADAPTIVE_DECAY_MAX}")
    for name in ("n_probs", "logprobs", "top_logprobs"):
        if not 0 <= int(getattr(fields, name) or 0) <= RIVALS_MAX:
            _refuse(name, f"0 to {RIVALS_MAX}")
    _check_sizes(fields)


def _check_sizes(fields: Fields) -> None:
    if len(fields.stops) > STOPS_MAX or any(len(stop) > STOP_CHARACTERS_MAX for stop in fields.stops):
        _refuse("stop", f"at most {STOPS_MAX} strings of {STOP_CHARACTERS_MAX} characters")
    if len(fields.logit_bias or ()) > BIASES_MAX:
        _refuse("logit_bias", f"of at most {BIASES_MAX} tokens")
    breakers = fields.dry_sequence_breakers
    if breakers is not None and not 0 < len(breakers) <= BREAKERS_MAX:
        _refuse("dry_sequence_breakers", f"a list of 1 to {BREAKERS_MAX} strings")
    if len(fields.samplers or ()) > SAMPLERS_MAX:
        _refuse("samplers", f"at most {SAMPLERS_MAX}")


def _refuse(parameter: str, expected: str) -> NoReturn:
    raise RequestRefused(f"`{parameter}` must be {expected}.", code="invalid_value", parameter=parameter)


def sampling_of(
    fields: Fields, seed: int, biases: tuple[tuple[int, float], ...], *, tells_probabilities: bool = False
) -> Sampling:
    """`seed` where the request names none; `biases` are already in tokens. Numbers out of range are brought
    into it, as llama-server does."""
    usual = Sampling()
    temperature = _or(fields.temperature, usual.temperature)
    asked = fields.seed if fields.seed is not None and fields.seed >= 0 else seed
    return Sampling(
        seed=asked % SEEDS,
        order=usual.order if fields.samplers is None else order_of(fields.samplers),
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
        biases=biases,
        tells_probabilities=tells_probabilities,
        **_penalties(fields, usual),
        **_whole_chains(fields, usual),
    )


def _penalties(fields: Fields, usual: Sampling) -> dict[str, Any]:
    base = _or(fields.dry_base, usual.dry_base)
    return {
        "repeat_last": min(_or(fields.repeat_last_n, usual.repeat_last), REPEAT_LAST_MAX),
        "repeat_penalty": _or(fields.repeat_penalty, usual.repeat_penalty),
        "frequency_penalty": _or(fields.frequency_penalty, usual.frequency_penalty),
        "presence_penalty": _or(fields.presence_penalty, usual.presence_penalty),
        "dry_multiplier": _or(fields.dry_multiplier, usual.dry_multiplier),
        "dry_base": base if base >= 1 else usual.dry_base,
        "dry_allowed_length": _or(fields.dry_allowed_length, usual.dry_allowed_length),
        "dry_last": min(_or(fields.dry_penalty_last_n, usual.dry_last), REPEAT_LAST_MAX),
        "dry_breakers": tuple(fields.dry_sequence_breakers or usual.dry_breakers),
    }


def _whole_chains(fields: Fields, usual: Sampling) -> dict[str, Any]:
    """What replaces the other samplers, or what they end with."""
    return {
        "mirostat": min(2, max(0, _or(fields.mirostat, usual.mirostat))),
        "mirostat_tau": _or(fields.mirostat_tau, usual.mirostat_tau),
        "mirostat_eta": _or(fields.mirostat_eta, usual.mirostat_eta),
        "adaptive_target": min(1.0, _or(fields.adaptive_target, usual.adaptive_target)),
        "adaptive_decay": _or(fields.adaptive_decay, usual.adaptive_decay),
    }


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
