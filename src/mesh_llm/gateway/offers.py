"""A served model's public face: what this node tells others of it, and what `/v1/models` shows."""

from mesh_llm.core.offers import ModelOffer
from mesh_llm.core.serving import ServedModel


def offer_of(model: ServedModel) -> ModelOffer:
    facts = model.facts
    return ModelOffer(
        name=model.name,
        aliases=model.aliases,
        bytes=model.bytes,
        context_length=model.context_length,
        context_length_trained=facts.context_length,
        parameters=facts.parameters,
        architecture=facts.architecture,
        quantisation=facts.quantisation,
        embedding_length=facts.embedding_length,
        slots=model.slots,
        capabilities=capabilities(model),
        created=model.created,
        stages=model.stages,
        cut=model.cut,
    )


def capabilities(model: ServedModel) -> tuple[str, ...]:
    if model.facts.pooling == "rank":
        return ("rerank",)
    if model.facts.pooling is not None:
        return ("embeddings",)
    able = {"tools": True, "embeddings": model.embeddings, "vision": model.vision}
    return ("chat", "completions", *(name for name, can in able.items() if can))
