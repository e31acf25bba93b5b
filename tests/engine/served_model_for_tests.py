"""A small served model as facts, for tests that need no file."""

from dataclasses import replace
from typing import Any

from mesh_llm.core.model import ModelFacts
from mesh_llm.core.serving import ServedModel

FACTS = ModelFacts(
    architecture="llama",
    parameters=134_515_008,
    quantisation="Q4_1",
    context_length=8192,
    embedding_length=576,
    vocabulary=49152,
    weights_bytes=96_576_768,
    kv_heads=(3,) * 30,
    key_length=64,
    value_length=64,
    sliding_window=0,
    sliding_layers=(False,) * 30,
    recurrent_bytes=0,
    experts=0,
    experts_used=0,
    chat_template="{{ messages }}",
    pooling=None,
)

SERVED = ServedModel(
    name="SmolLM2-135M-Instruct",
    aliases=(),
    facts=FACTS,
    bytes=98_362_432,
    context_length=8192,
    kv_type="f16",
    slots=4,
    vision=False,
    embeddings=True,
    created=1_790_000_000,
)


def served(**changes: Any) -> ServedModel:
    return replace(SERVED, **changes)
