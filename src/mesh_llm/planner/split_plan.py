"""What `splitting.plan` answers: one of four plans, each with its reason for people."""

from dataclasses import dataclass

from mesh_llm.core.ids import NodeId
from mesh_llm.core.stages import LayerRange
from mesh_llm.planner.fit import Fit
from mesh_llm.planner.memory import MemoryNeed
from mesh_llm.planner.split_view import Pair


@dataclass(frozen=True, slots=True)
class Whole:
    """One node holds it all: this one, or the one to ask to serve it."""

    node: NodeId
    fit: Fit
    because: str


@dataclass(frozen=True, slots=True)
class PlannedStage:
    node: NodeId
    layers: LayerRange
    need: MemoryNeed


@dataclass(frozen=True, slots=True)
class Stages:
    """A ring: remote stages in its order, and last this node's head with the last layers."""

    stages: tuple[PlannedStage, ...]
    context: int
    """Tokens in all, shared by the sequences."""
    kv_type: str
    sequences: int
    batch: int
    """Rows of a step at most."""
    seconds_per_token: float
    """Predicted, of a single stream: reading all weights once, and one way over each link of the ring."""
    because: str


@dataclass(frozen=True, slots=True)
class Measure:
    """Round trips that must be known before anything can be decided. One that cannot be measured goes into
    the view as infinite."""

    pairs: tuple[Pair, ...]
    because: str


@dataclass(frozen=True, slots=True)
class Wait:
    """The nodes within reach cannot hold it."""

    missing_bytes: int
    """That one more node near by would have to have for this model."""
    because: str
    """For people, with what helps."""


Plan = Whole | Stages | Measure | Wait
