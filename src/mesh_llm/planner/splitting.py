"""Where a model runs that may need several nodes. One frozen view in, one plan out; the same for everybody
who sees the same, whatever the order of the candidates.

Whole wherever it fits. Else the fewest nodes; among as many, the least time for a token. Only links that were
measured count.
"""

from dataclasses import dataclass

from mesh_llm.core.ids import NodeId
from mesh_llm.core.stages import Cuttable, LayerRange
from mesh_llm.planner.fit import Fit, MemoryNeed
from mesh_llm.planner.split_view import Pair, SplitView, SplitWish


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
    """That one more node would have to have for this model; 0 where memory is not what is missing."""
    because: str
    """For people, with what helps."""


Plan = Whole | Stages | Measure | Wait


def plan(model: Cuttable, view: SplitView, wish: SplitWish) -> Plan:
    """Raises RequestRefused where the wish can never be met: a context beyond the model's training, more
    stages than it can be cut into, or a forced split of a model that cannot be cut."""
    raise NotImplementedError
