"""Which architectures can be cut into stages, and what each needs. Data, with its source, and who reads it.

An architecture that is not in the table is not cut.
"""

from collections.abc import Sequence

from mesh_llm.core.stages import Cuttable
from mesh_llm.models.gguf.contents import Header


def cuttable(parts: Sequence[Header]) -> Cuttable:
    """What planning must know. Raises RequestRefused where this model cannot be split, ModelDamaged."""
    raise NotImplementedError


def residual_name(parts: Sequence[Header], layers: int) -> str:
    """The tensor in which a stage of so many layers leaves the residual stream, e.g. `l_out-11`."""
    raise NotImplementedError


def embedding_scale(parts: Sequence[Header]) -> float:
    """What the head multiplies embedding rows with, because the graph does so for tokens only; else 1.0."""
    raise NotImplementedError
