"""What one stage is told: values that the node decides and the child (`child.py`) applies.

They cross as one line of JSON on the child's standard input, as those of `engine/whole` do.
"""

import json
from dataclasses import asdict, dataclass


@dataclass(frozen=True, slots=True)
class StageSettings:
    model_path: str
    """The stage's file; of a split one the first part."""
    name: str
    layers: int
    """That the file must hold."""
    residual: str
    """Name of the tensor in which the last layer leaves the residual stream: `l_out-11`."""
    context_length: int
    """Tokens in all; the sequences share them, and one may use them all."""
    sequences: int
    batch: int
    """Rows of a step at most."""
    kv_type: str
    """`f16`, `q8_0` or `q4_0`, for keys and values."""
    threads: int
    gpu_layers: int
    """-1: as many as the devices hold."""
    device_shares: tuple[float, ...]
    """Per device of the engine, in its order, what share of the stage it takes; empty: the engine decides."""
    memory_bytes: int
    """Of this machine's own memory that the plan says it needs; the child refuses where less is free now.
    0: not known."""
    socket_path: str
    """Where it listens for the ring; the folder exists and is private."""
    entrance: str | None = None
    """Name of the tensor that hidden states are written over where the architecture does not take vectors as
    they are: `inp_scaled`; None where it does."""

    def to_line(self) -> bytes:
        return json.dumps(asdict(self)).encode()

    @classmethod
    def from_line(cls, line: bytes) -> "StageSettings":
        fields = json.loads(line)
        fields["device_shares"] = tuple(fields["device_shares"])
        return cls(**fields)
