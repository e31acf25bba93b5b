"""What is asked of the pipeline, and what it tells of an answer while it grows. Values only."""

from dataclasses import dataclass
from typing import Literal

from mesh_llm.engine.llama.probabilities import Probabilities
from mesh_llm.engine.llama.samplers import Sampler

Reason = Literal["stop", "length"]


@dataclass(frozen=True, slots=True)
class Limits:
    """What ends an answer beside the model itself and its length."""

    stops: tuple[str, ...] = ()
    milliseconds: int = 0
    """From the first token on; the next line break after them is the end. 0: no such limit."""

    @property
    def need_text(self) -> bool:
        """Whether each token must be spelled at once, to know if it was the last."""
        return bool(self.stops) or self.milliseconds > 0


@dataclass(frozen=True, slots=True)
class Question:
    request: int
    """Drawn by the asker, never twice."""
    tokens: tuple[int, ...]
    tokens_max: int
    """Of the answer, 1 or more."""
    sampler: Sampler
    """The pipeline's from here on."""
    limits: Limits = Limits()
    shown: frozenset[int] = frozenset()
    """Control tokens whose text belongs to the answer."""
    rivals: int = 0
    """How many tokens' probabilities are told with each token of the answer; 0: none."""
    rivals_as_sampled: bool = False
    """Those that the samplers left, instead of those that the model gave."""
    may_reuse: bool = True
    """Whether what is cached of other requests may serve for this one."""


@dataclass(frozen=True, slots=True)
class Timings:
    """Counts and durations of one answer, as llama-server's `timings` (server_slot_stats::to_json)."""

    prompt_tokens: int
    answer_tokens: int
    """The one that ended it included."""
    prompt_milliseconds: float
    """From the question to its first token, waiting included."""
    answer_milliseconds: float
    cached_tokens: int = 0
    """Of the prompt, that need not be computed again."""


@dataclass(frozen=True, slots=True)
class Scored:
    """A token of the answer and its rivals."""

    token: int
    probabilities: Probabilities


@dataclass(frozen=True, slots=True)
class Told:
    """By one token."""

    request: int
    text: str
    scored: Scored | None = None


@dataclass(frozen=True, slots=True)
class Ended:
    request: int
    reason: Reason
    timings: Timings
    stop: str = ""
    """The stop string that ended it."""


@dataclass(frozen=True, slots=True)
class BrokenOff:
    """Nothing more comes."""

    request: int
    reason: str
    is_refusal: bool = False
    """Whether asking again for the same cannot help."""


News = Told | Ended | BrokenOff
