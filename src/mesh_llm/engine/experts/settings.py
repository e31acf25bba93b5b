"""What the measuring children are told: values that cross as one line of JSON, as in `engine/stage`."""

import json
from dataclasses import asdict, dataclass, field
from typing import Any

CHUNK_TOKENS = 512
"""What llama-perplexity and llama-imatrix take at a time, from an empty cache."""


@dataclass(frozen=True, slots=True)
class Loading:
    """How a child holds a model."""

    model_path: str
    """Of a split file the first part."""
    threads: int
    gpu_layers: int = 0
    repacks: bool = True
    """Not where the model is larger than memory: then its weights stay mapped and come from disk."""


@dataclass(frozen=True, slots=True)
class CalibratingSettings:
    loading: Loading
    experts: int
    layers: tuple[int, ...]
    """That hold experts."""
    chunks: int
    text_path: str | None
    """None: of the documentation of Python, the half for calibrating."""


@dataclass(frozen=True, slots=True)
class JudgingSettings:
    loading: Loading
    reference_path: str
    """What the full model said: written where `is_full`, else compared with."""
    identity: str
    """Of the full model's files."""
    is_full: bool
    chunks: int


@dataclass(frozen=True, slots=True)
class TryingSettings:
    loading: Loading
    batch: int = field(default=CHUNK_TOKENS)
    """Of llama-server: how large a graph may become depends on it."""


Settings = CalibratingSettings | JudgingSettings | TryingSettings


def to_line(settings: Settings) -> bytes:
    return json.dumps(asdict(settings)).encode()


def fields_of(line: bytes) -> dict[str, Any]:
    """Arguments of the class that the line was made of."""
    fields: dict[str, Any] = json.loads(line)
    fields["loading"] = Loading(**fields["loading"])
    if "layers" in fields:
        fields["layers"] = tuple(fields["layers"])
    return fields
