"""What goes into the scheduler (`scheduler.py`) and what comes out of it: values."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from mesh_llm.engine.ring.frames import Command

WAITING_MAX = 1024
"""Each has its samplers already; one HTTP request may bring 256 (GENERATIONS_MAX)."""

NOT_YET_UP = "the ring has not been up yet"


@dataclass(frozen=True, slots=True)
class Capacity:
    context: int
    """Cells of the KV cache that all sequences share, on every stage."""
    sequences: int
    batch: int
    """Rows of a step at most."""
    stages: int
    """Remote stages, 0 or more."""
    forgets: bool = False
    """Whether layers do not keep all that they have seen (sliding windows, recurrent states)."""
    waiting_max: int = WAITING_MAX

    def __post_init__(self) -> None:
        if min(self.context, self.batch) < 2 or self.sequences < 1 or self.stages < 0:
            raise ValueError(f"{self} leaves no room to work: two cells, two rows and one sequence at least")

    @property
    def places(self) -> int:
        """Where a step may be computed: the remote stages and the head."""
        return self.stages + 1

    @property
    def steps_max(self) -> int:
        """In flight: one at every place, and one on the way so that nobody waits for a link."""
        return self.places + 1 if self.stages else 1

    def holds(self, prompt_tokens: int) -> bool:
        """Whether an answer can begin: llama-server's own bound (`n_tokens() >= slot.n_ctx` is refused)."""
        return 0 < prompt_tokens < self.context


@dataclass(frozen=True, slots=True)
class Submit:
    request: int
    """Drawn by the caller, never twice."""
    tokens: tuple[int, ...]
    tokens_max: int
    """Of the answer, 1 or more."""
    may_reuse: bool = True
    """Whether it may begin with what others left in the caches, and leaves there what it has computed."""


@dataclass(frozen=True, slots=True)
class Cancel:
    request: int


@dataclass(frozen=True, slots=True)
class Sampled:
    token: int
    ends: bool
    """Whether the answer stops with it."""


@dataclass(frozen=True, slots=True)
class Home:
    """The oldest step in flight is home and computed to its end."""

    sampled: Mapping[int, Sampled]
    """Per request of `wanted()`."""


@dataclass(frozen=True, slots=True)
class RingUp:
    """All stages hold an empty cache."""


@dataclass(frozen=True, slots=True)
class RingLost:
    reason: str


Event = Submit | Cancel | Home | RingUp | RingLost


@dataclass(frozen=True, slots=True)
class Row:
    sequence: int
    position: int
    token: int
    sampled: bool
    """Whether its logits choose the next token."""


@dataclass(frozen=True, slots=True)
class Send:
    """The next step; it comes home after those before it."""

    commands: tuple[Command, ...]
    rows: tuple[Row, ...]


@dataclass(frozen=True, slots=True)
class Finished:
    request: int
    reason: Literal["stop", "length"]
    cached: int
    """Tokens of its prompt that were in the caches already."""


@dataclass(frozen=True, slots=True)
class Failed:
    request: int
    reason: str


Effect = Send | Finished | Failed
