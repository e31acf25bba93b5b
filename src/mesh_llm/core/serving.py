"""A model as it is served: what it is called, where it answers, how it is doing."""

from dataclasses import dataclass
from typing import Literal

from mesh_llm.core.model import ModelFacts
from mesh_llm.core.offers import CutOffer
from mesh_llm.core.stages import StageHolding


@dataclass(frozen=True, slots=True)
class ServedModel:
    name: str
    """The `model` of requests and answers."""
    aliases: tuple[str, ...]
    facts: ModelFacts
    bytes: int
    """Size of its files."""
    context_length: int
    """Tokens that one request may use here."""
    kv_type: str
    slots: int
    """Requests answered at once; more wait."""
    vision: bool
    created: int
    """Seconds since the epoch: when this node began to serve it."""
    embeddings: bool = True
    """Whether it answers /v1/embeddings; a tight fit leaves that out."""
    stages: tuple[StageHolding, ...] = ()
    """Who runs which layers, in the order of the ring; empty where this node runs them all."""
    cut: CutOffer | None = None
    """None where the whole model answers."""


Dialect = Literal["llama", "openai"]
"""What a server understands: llama-server's own fields and routes too, or only what OpenAI's API has."""


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where an engine answers HTTP."""

    url: str
    """`http://127.0.0.1:43835`, no trailing slash and no `/v1`."""
    api_key: str
    """Empty where the server asks for none."""
    dialect: Dialect = "llama"


@dataclass(frozen=True, slots=True)
class Loading:
    fraction: float
    """0 to 1."""


@dataclass(frozen=True, slots=True)
class Ready:
    endpoint: Endpoint


@dataclass(frozen=True, slots=True)
class Restarting:
    reason: str
    attempt: int
    retry_after_s: int


@dataclass(frozen=True, slots=True)
class Waiting:
    """For something outside this node: more memory in the mesh, say."""

    reason: str


@dataclass(frozen=True, slots=True)
class Failed:
    """Given up on until somebody acts."""

    reason: str


@dataclass(frozen=True, slots=True)
class Stopped:
    pass


Condition = Loading | Ready | Restarting | Waiting | Failed | Stopped
