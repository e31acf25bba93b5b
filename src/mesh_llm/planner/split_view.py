"""What `splitting.plan` is asked: who could run stages, how far they are from each other, what is wanted."""

from collections.abc import Mapping
from dataclasses import dataclass

from mesh_llm.core.ids import NodeId, short
from mesh_llm.planner.fit import BATCH

ROUND_TRIP_MAX_S = 0.080
"""A token waits for every link of the ring: over 80 ms no stage is worth its memory."""

HOSTS_MAX = 64
"""Of more candidates the roomiest are looked at."""

Pair = tuple[NodeId, NodeId]
"""Two nodes in ascending order: a round trip is the same both ways."""


def pair(one: NodeId, other: NodeId) -> Pair:
    return (one, other) if one < other else (other, one)


@dataclass(frozen=True, slots=True)
class StageHost:
    """A node that could run a stage."""

    node: NodeId
    memory_bytes: int
    """That this model may use there."""
    speed: float = 0.0
    """Bytes of weights that it reads a second while it decodes; 0 where nobody has measured."""
    name: str = ""
    """For people."""

    @property
    def label(self) -> str:
        return self.name or short(self.node)


@dataclass(frozen=True, slots=True)
class SplitView:
    """What the node that would lead knows at this moment. The order of `others` means nothing."""

    me: StageHost
    others: tuple[StageHost, ...]
    round_trips: Mapping[Pair, float]
    """Seconds, as measured; infinite where it was tried and there is no way. What is missing is not known."""


@dataclass(frozen=True, slots=True)
class SplitWish:
    """What somebody asked for; None leaves it to `plan`."""

    context: int | None = None
    """Tokens of `--ctx-size`."""
    slots: int = 4
    """Sequences in the ring at once."""
    batch: int = BATCH
    stages: int | None = None
    """`--split` and `--stages`: None splits only what fits no node, 0 into two at least, N into N."""
    round_trip_max_s: float = ROUND_TRIP_MAX_S
