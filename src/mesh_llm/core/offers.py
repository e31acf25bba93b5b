"""What a node offers to others: a served model's public face, small enough to be gossiped."""

from dataclasses import dataclass

from mesh_llm.core.stages import StageHolding


@dataclass(frozen=True, slots=True)
class ModelOffer:
    """What `/v1/models` tells of a model, wherever it runs. New fields have defaults: peers may be older."""

    name: str
    """The `model` of requests and answers."""
    aliases: tuple[str, ...] = ()
    bytes: int = 0
    """Size of its files; 0 where unknown."""
    context_length: int = 0
    """Tokens that one request may use there; 0 where unknown."""
    context_length_trained: int = 0
    parameters: int = 0
    architecture: str = "unknown"
    quantisation: str = "unknown"
    embedding_length: int = 0
    slots: int = 1
    """Requests answered at once; more wait."""
    capabilities: tuple[str, ...] = ("chat", "completions")
    created: int = 0
    """Seconds since the epoch: when that node began to serve it."""
    stages: tuple[StageHolding, ...] = ()
    """Who runs which layers, in the order of the ring; empty where one node runs them all."""


@dataclass(frozen=True, slots=True)
class ServedOffer:
    """A model on one node, and how it is doing there."""

    offer: ModelOffer
    ready: bool
    """Whether it answers now; false while it loads or restarts."""
    tokens_per_second: float = 0.0
    """Of one answer, measured lately; 0 before the first."""
