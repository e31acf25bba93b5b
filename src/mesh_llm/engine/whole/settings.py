"""What one llama-server is told: values that the node decides and the child (`child.py`) applies.

They cross as one line of JSON on the child's standard input, never as arguments, so the engine's key does not
show in a process list.
"""

import json
from dataclasses import asdict, dataclass


@dataclass(frozen=True, slots=True)
class EngineSettings:
    model_path: str
    """The first part of a split file; the engine finds the others beside it."""
    projector_path: str | None
    name: str
    api_key: str
    context_length: int
    """Tokens in all; the slots share them, and one request may use them all."""
    slots: int
    batch: int
    """Tokens of a prompt that are worked on at once; the others wait that long, and a cancel too."""
    kv_type: str
    """`f16`, `q8_0` or `q4_0`, for keys and values."""
    threads: int
    gpu_layers: int
    """-1: as many as the devices hold."""
    device_shares: tuple[float, ...]
    """Per device of the engine, in its order, what share of the model it takes; empty: the engine decides."""
    embeddings: bool
    pooling: str | None
    """How an embedding is made where the file does not say: `last`; None leaves it to the file."""
    reranking: bool
    checkpoints: int
    """Saved states a slot may go back to, for models with sliding windows or recurrent layers."""
    prompt_cache_mib: int
    """Memory for prompts that have left their slot. The engine's default of 8192 is never meant."""

    def to_line(self) -> bytes:
        return json.dumps(asdict(self)).encode()

    @classmethod
    def from_line(cls, line: bytes) -> "EngineSettings":
        fields = json.loads(line)
        fields["device_shares"] = tuple(fields["device_shares"])
        return cls(**fields)
