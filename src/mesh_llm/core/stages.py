"""A model in stages: which layers are where. Values that planning, engines, the mesh and people share."""

from dataclasses import dataclass
from typing import Literal

from mesh_llm.core.ids import NodeId
from mesh_llm.core.model import ModelFacts


@dataclass(frozen=True, slots=True, order=True)
class LayerRange:
    """Layers [first, end) of a model, counted from 0."""

    first: int
    end: int

    def __post_init__(self) -> None:
        if not 0 <= self.first < self.end:
            raise ValueError(f"[{self.first}, {self.end}) is no range of layers")

    def __str__(self) -> str:
        return f"layers {self.first}-{self.end - 1}"

    @property
    def count(self) -> int:
        return self.end - self.first


LAYERS_MAX = 4096
"""Of a model that others speak of; llama.cpp itself takes 512."""

STAGES_MAX = 64
"""Of one model, head included: each costs a delay, and frames of the ring have room for so many."""

Activations = Literal["f32", "f16"]
"""How hidden states travel: f32 is exact, f16 halves the bytes."""

SplitBy = Literal["layers", "experts"]
"""Stages hold some layers each and compute every token together, exactly. Cuts of experts hold all layers
each, with fewer experts, and answer alone: approximately."""


@dataclass(frozen=True, slots=True)
class StageHolding:
    """Who runs which layers of a split model, as people see it."""

    node: NodeId
    node_name: str
    layers: LayerRange
    is_head: bool
    """The head runs the last layers, samples, and speaks HTTP."""


ClaimState = Literal["wanting", "leading", "serving"]
"""Would lead if nobody does; takes memory for its plan; answers requests."""

CLAIMS_MAX = 16
"""Of one node: models that it would split."""
CLAIM_MODEL_CHARACTERS_MAX = 200


@dataclass(frozen=True, slots=True)
class SplitClaim:
    """A node's word, in its advert, that it wants to run a model over several nodes (`splits/claims.py`)."""

    model: str
    """Which model: its identity, the same wherever the files have the same bytes."""
    state: str = "wanting"
    """A ClaimState; newer peers may know more, which count as `wanting`."""
    room: int = 0
    """Bytes that the node has for it, as of when it began to want: who has the most leads."""


@dataclass(frozen=True, slots=True)
class Cuttable:
    """What planning must know of a model that can be cut into stages."""

    facts: ModelFacts
    layer_bytes: tuple[int, ...]
    """Weights of each layer."""
    output_bytes: int
    """Output head and norms: read for each token by the head, beside its layers."""
    embedding_bytes: int
    """A token embedding that is no output head as well: the head looks single rows up in it. 0 where tied."""
    cuts: tuple[int, ...]
    """Where a stage may begin, ascending, without 0."""
    lengths_refused: tuple[int, ...] = ()
    """Numbers of layers that no stage may have: the engine would take it for another model."""
    merges: int | None = None
    """Pairs that its tokenizer joins, which the head keeps in memory; None where not known."""
