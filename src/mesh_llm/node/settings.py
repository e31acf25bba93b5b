"""What a node is told at its start, and what it meets of the world."""

import random
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from mesh_llm.core.experts import QUALITY_RATIO_MAX, ExpertLayout
from mesh_llm.core.progress import Report
from mesh_llm.core.serving import Endpoint
from mesh_llm.core.stages import Activations, SplitBy
from mesh_llm.mesh.transport import Relays
from mesh_llm.models.places import ModelPlaces
from mesh_llm.runtime.clock import Clock


@dataclass(frozen=True, slots=True)
class NodeSettings:
    """What the command line says, checked."""

    home: Path
    models: tuple[str, ...]
    """References as a person writes them; empty: show instructions and the console only."""
    endpoints: tuple[Endpoint, ...]
    """Servers that run already, whose models this node serves."""
    port: int
    console_port: int
    listen_all: bool
    api_key: str | None
    memory_bytes_max: int | None
    devices: tuple[str, ...]
    context_length: int | None
    slots: int
    places: ModelPlaces
    join: tuple[str, ...]
    """Invite tokens, to be tried in turn."""
    client: bool
    ephemeral: bool
    """The key stays in memory, and nothing is kept of the mesh."""
    name: str
    """What others call this node."""
    bind_port: int
    relays: Relays
    invite_ttl_s: int
    drain_s: float
    """Requests under way may take so long when the node is stopped."""
    stages: int | None = None
    """Into how many stages models are cut: None leaves whole what fits one node, 0 means two at least."""
    activations: Activations | None = None
    """How hidden states travel between stages; None: as the links allow."""
    split_by: SplitBy | None = None
    """Of `--split layers` and `--split experts`; None: whatever serves the model exactly."""
    expert_layout: ExpertLayout = "best"
    """Which experts each node keeps of a mixture that fits none."""
    quality_ratio_max: float = QUALITY_RATIO_MAX
    """Of a cut that nobody asked for: its perplexity against that of the whole model."""

    @property
    def alone(self) -> bool:
        """Nothing to serve and nobody to use: the node belongs to no mesh."""
        return not (self.models or self.endpoints or self.client or self.join)

    @property
    def role(self) -> str:
        """As adverts say it."""
        if self.client:
            return "client"
        return "server" if self.models or self.endpoints else "standby"


@dataclass(frozen=True, slots=True)
class Doors:
    """What a node meets of the world, besides the network and its own files."""

    environment: Mapping[str, str]
    report: Report
    clock: Clock
    chance: random.Random
    """For keys and ids: a SystemRandom outside tests."""
