"""What is asked of the pipeline, and what it tells of an answer while it grows. Values only."""

from dataclasses import dataclass
from typing import Literal

from mesh_llm.engine.llama.samplers import Sampling


@dataclass(frozen=True, slots=True)
class Question:
    request: int
    """Drawn by the asker, never twice."""
    tokens: tuple[int, ...]
    tokens_max: int
    """Of the answer, 1 or more."""
    sampling: Sampling
    stops: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Timings:
    """Counts and durations of one answer, as llama-server's `timings` (server_slot_stats::to_json)."""

    prompt_tokens: int
    answer_tokens: int
    """The one that ended it included."""
    prompt_milliseconds: float
    """From the question to its first token, waiting included."""
    answer_milliseconds: float


@dataclass(frozen=True, slots=True)
class Told:
    request: int
    text: str


@dataclass(frozen=True, slots=True)
class Ended:
    request: int
    reason: Literal["stop", "length"]
    timings: Timings


@dataclass(frozen=True, slots=True)
class BrokenOff:
    """Nothing more comes."""

    request: int
    reason: str


News = Told | Ended | BrokenOff
