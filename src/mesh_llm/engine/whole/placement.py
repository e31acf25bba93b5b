"""From a model on disk and its place in memory to what its engine is told and what the world sees of it."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from mesh_llm.core.machine import Device, Machine
from mesh_llm.core.model import ModelFacts
from mesh_llm.core.quantities import MIB
from mesh_llm.core.serving import ServedModel
from mesh_llm.engine.whole.settings import EngineSettings
from mesh_llm.models.library import LocalModel
from mesh_llm.planner.capacity import shares
from mesh_llm.planner.fit import Fit


def facts_in_memory(facts: ModelFacts, projector: Path | None) -> ModelFacts:
    """The facts with the projector's bytes among the weights: it is loaded beside them."""
    beside = projector.stat().st_size if projector is not None else 0
    return replace(facts, weights_bytes=facts.weights_bytes + beside)


def engine_settings(
    model: LocalModel, fitted: Fit, machine: Machine, all_devices: Sequence[Device], api_key: str
) -> EngineSettings:
    """`machine` has the devices that may be used, `all_devices` is what the engine sees."""
    return EngineSettings(
        model_path=str(model.files[0]),
        projector_path=str(model.projector) if model.projector else None,
        name=model.name,
        api_key=api_key,
        context_length=fitted.context,
        slots=fitted.slots,
        batch=fitted.batch,
        kv_type=fitted.kv_type,
        threads=machine.cores,
        gpu_layers=-1 if machine.devices else 0,
        device_shares=shares(all_devices, machine.devices) if machine.devices else (),
        embeddings=fitted.embeddings,
        # Of the last token, so that a text may be longer than one batch.
        pooling="last" if model.facts.pooling is None else None,
        reranking=model.facts.pooling == "rank",
        checkpoints=fitted.checkpoints,
        prompt_cache_mib=fitted.prompt_cache_bytes // MIB,
    )


def served_model(model: LocalModel, fitted: Fit, now: float) -> ServedModel:
    """`now` in seconds since the epoch."""
    return ServedModel(
        name=model.name,
        aliases=model.aliases,
        facts=model.facts,
        bytes=model.bytes,
        context_length=fitted.context,
        kv_type=fitted.kv_type,
        slots=fitted.slots,
        vision=model.projector is not None,
        embeddings=fitted.embeddings,
        created=int(now),
    )
