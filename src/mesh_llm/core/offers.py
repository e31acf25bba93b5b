"""What a node offers to others: a served model's public face, small enough to be gossiped."""

from collections.abc import Mapping
from dataclasses import dataclass

from mesh_llm.core.experts import Quality
from mesh_llm.core.stages import StageHolding

WOULD_MEASURE = "would"
MEASURES_NOW = "now"


@dataclass(frozen=True, slots=True)
class CutOffer:
    """That a node answers for a mixture of experts with some of its experts only, approximately; or prepares
    to."""

    model: str
    """Identity of the whole model's files, as in `SplitClaim`."""
    ranking: str = ""
    """Digest of the ranking that chose them; empty while there is none."""
    choice: str = ""
    """Digest of which they are: equal choices answer alike."""
    kept: int = 0
    """Experts of each layer; 0 while it is not decided."""
    experts: int = 0
    """That the whole model has in each."""
    quality: Quality | None = None
    """What it costs; None before somebody has measured it."""
    measuring: str = ""
    """WOULD_MEASURE, or MEASURES_NOW: the ranking while there is none, else the quality. Empty where the node
    cannot, has tried in vain, or need not."""

    @property
    def is_approximate(self) -> bool:
        """Not where all experts are kept, nor while nothing is decided."""
        return 0 < self.kept < self.experts

    def shown(self) -> Mapping[str, object]:
        """As `/v1/models` and `/api/status` say it; what was not measured is None."""
        quality = self.quality
        return {
            "experts_kept": self.kept,
            "experts": self.experts,
            "choice": self.choice,
            "perplexity_ratio": quality and round(quality.ratio, 3),
            "kl": quality and round(quality.kl, 4),
            "same_top": quality and round(quality.same_top, 3),
            "tokens_measured": quality and quality.tokens,
        }


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
    cut: CutOffer | None = None
    """None where the whole model answers."""


@dataclass(frozen=True, slots=True)
class ServedOffer:
    """A model on one node, and how it is doing there."""

    offer: ModelOffer
    ready: bool
    """Whether it answers now; false while it loads or restarts."""
    tokens_per_second: float = 0.0
    """Of one answer, measured lately; 0 before the first."""
