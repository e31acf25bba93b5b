"""How much memory one child of a split model takes: a remote stage, or the head with the last layers."""

from mesh_llm.core.stages import Cuttable, LayerRange
from mesh_llm.planner.fit import MemoryNeed


def predict_stage(
    model: Cuttable,
    layers: LayerRange,
    *,
    is_head: bool,
    context: int,
    kv_type: str,
    sequences: int,
    batch: int,
) -> MemoryNeed:
    """What the child takes at most, in bytes; `kv_type` is a key of `KV_TYPES`."""
    raise NotImplementedError
