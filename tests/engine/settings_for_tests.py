"""Settings of a small engine, as the node would choose them."""

from dataclasses import replace
from pathlib import Path
from typing import Any

from mesh_llm.engine.whole.settings import EngineSettings

SMALL = EngineSettings(
    model_path="",
    projector_path=None,
    name="test-model",
    api_key="key-of-the-engine",
    context_length=2048,
    slots=4,
    batch=256,
    kv_type="f16",
    threads=2,
    gpu_layers=-1,
    device_shares=(),
    embeddings=True,
    pooling="last",
    reranking=False,
    checkpoints=0,
    prompt_cache_mib=64,
)


def settings_for(model: Path, **changes: Any) -> EngineSettings:
    return replace(SMALL, model_path=str(model), **changes)
