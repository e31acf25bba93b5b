"""Facts of models on this disk. Counterpart: `model_facts.py`, which makes them of headers from anywhere."""

from collections.abc import Sequence
from pathlib import Path

from mesh_llm.core.model import ModelFacts
from mesh_llm.models.gguf.header import read_file_header
from mesh_llm.models.gguf.model_facts import facts_of


def read_file_facts(parts: Sequence[Path]) -> ModelFacts:
    """Facts of a local model, its parts in order. Raises ModelNotFound and ModelDamaged."""
    return facts_of([read_file_header(part) for part in parts])
