"""How the ring of a split model is doing, as its head tells its parent: a line `ring {...}` per change."""

import json
from dataclasses import asdict, dataclass
from typing import Any

from mesh_llm.core.stages import Activations

WORD = "ring"


@dataclass(frozen=True, slots=True)
class RingUp:
    layers: tuple[int, ...]
    """Of each remote stage, in order."""
    activations: Activations
    lap_seconds: float
    """Of a step without rows."""
    stage_microseconds: tuple[int, ...]
    """What a step of a whole batch took each remote stage to compute."""
    head_microseconds: int
    """The same for the head's own layers."""


@dataclass(frozen=True, slots=True)
class RingDown:
    reason: str


RingState = RingUp | RingDown


def to_fields(state: RingState) -> dict[str, Any]:
    return {"up": isinstance(state, RingUp)} | asdict(state)


def from_text(text: str) -> RingState:
    """Of a line without its word. Raises ValueError for what `to_fields` did not make."""
    try:
        fields: dict[str, Any] = json.loads(text)
        if not fields.pop("up"):
            return RingDown(str(fields["reason"]))
        fields["layers"] = tuple(fields["layers"])
        fields["stage_microseconds"] = tuple(fields["stage_microseconds"])
        return RingUp(**fields)
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"no state of a ring: {text[:200]}") from error
