"""What the head of a split model is told: values that the node decides and the child (`child.py`) applies.

They cross as one line of JSON on the child's standard input, as those of `engine/whole` do.
"""

import json
from dataclasses import asdict, dataclass

from mesh_llm.core.stages import Activations

ActivationsChoice = Activations | None
"""None: the head measures the ring and chooses."""


@dataclass(frozen=True, slots=True)
class HeadSettings:
    model_path: str
    """The head's stage file: the last layers, all rows of the embedding and the output, the tokenizer. With
    no remote stages the whole model; of a split file the first part."""
    name: str
    api_key: str
    context_length: int
    """Tokens in all; the sequences share them, and one request may use them all."""
    sequences: int
    """Requests answered at once; more wait."""
    batch: int
    """Rows of a step at most."""
    kv_type: str
    """`f16`, `q8_0` or `q4_0`, for keys and values."""
    threads: int
    gpu_layers: int
    """-1: as many as the devices hold."""
    device_shares: tuple[float, ...]
    """Per device of the engine, in its order, what share of the model it takes; empty: the engine decides."""
    stages: int
    """Remote stages of the ring; 0: the head holds all layers and opens no socket."""
    activations: ActivationsChoice
    embedding_scale: float
    """What the architecture multiplies embedding rows with where they come from tokens only (gemma: the root
    of the width); else 1."""
    socket_path: str
    """Where the ring is bridged to; the folder exists and is private. Empty without remote stages."""
    entrance: str | None = None
    """Name of the tensor that hidden states are written over where the architecture does not take vectors as
    they are (`ContextSettings.entrance`); the same for every stage of a model."""

    def to_line(self) -> bytes:
        return json.dumps(asdict(self)).encode()

    @classmethod
    def from_line(cls, line: bytes) -> "HeadSettings":
        fields = json.loads(line)
        fields["device_shares"] = tuple(fields["device_shares"])
        return cls(**fields)
