"""What an OpenAI-compatible server tells of its models: vLLM, Ollama, llama-server, LM Studio, TGI differ.

Decides only. Counterpart: `external.py`, which asks.
"""

from collections.abc import Iterable
from typing import Any, cast

from mesh_llm.core.model import ModelFacts
from mesh_llm.core.serving import ServedModel

MODELS_MAX = 64
"""Of one server; a cloud's hundreds would drown the mesh's own, and all are told to every peer."""

TEXT_LENGTH_MAX = 200
"""`organisation/repository:quantisation` of the hub stays below 150."""

NUMBER_MAX = 2**53
"""Exact in every JSON reader; no model has as many of anything."""

SLOTS = 32
"""Requests sent at once: such servers queue by themselves, and none says how many it takes."""

CONTEXT_FIELDS = ("max_model_len", "context_length", "max_context_length", "n_ctx")
"""As vLLM, OpenRouter, LM Studio and llama-server call it."""


class NoListing(Exception):
    """The answer is no list of models; the text says what it is, and the cure."""


def read_listing(answer: object, now: int) -> tuple[ServedModel, ...]:
    """The models of a parsed `/v1/models` answer, in its order. `now` in seconds since the epoch.

    Entries that are not understood are left out. Raises NoListing where nothing can be understood.
    """
    if not isinstance(answer, dict):
        raise NoListing("its /v1/models is no JSON object: it does not speak OpenAI's API")
    fields = cast("dict[str, Any]", answer)
    listed = fields.get("data", fields.get("models"))
    if listed is None and ("data" in fields or "models" in fields):
        listed = []  # Ollama without a model
    if not isinstance(listed, list):
        raise NoListing("its /v1/models has no list `data`: it does not speak OpenAI's API")
    entries = [_Entry(cast("dict[str, Any]", e)) for e in cast("list[Any]", listed) if isinstance(e, dict)]
    if any(entry.text("owned_by") == "mesh-llm" for entry in entries):
        raise NoListing("it is a node of mesh-llm: join its mesh with --join TOKEN instead of --endpoint")
    return _distinct(entry.served(now) for entry in entries if entry.name)


def _distinct(models: Iterable[ServedModel]) -> tuple[ServedModel, ...]:
    by_name: dict[str, ServedModel] = {}
    for model in models:
        by_name.setdefault(model.name, model)
    return tuple(by_name.values())[:MODELS_MAX]


class _Entry:
    """One model's fields, with those that servers nest (`meta`, `details`) beside the others."""

    def __init__(self, fields: dict[str, Any]) -> None:
        nested = [fields[key] for key in ("meta", "details") if isinstance(fields.get(key), dict)]
        self._fields: dict[str, Any] = {key: value for part in nested for key, value in part.items()} | fields

    @property
    def name(self) -> str:
        """Empty where it has none that can be used."""
        return self.text("id") or self.text("name") or self.text("model")

    def text(self, key: str) -> str:
        """Empty where it is none that can be shown."""
        value = self._fields.get(key)
        if not isinstance(value, str) or len(value) > TEXT_LENGTH_MAX or not value.isprintable():
            return ""
        return value

    def number(self, *keys: str) -> int:
        """The first positive one; 0 where there is none."""
        values = (self._fields.get(key) for key in keys)
        return next((v for v in values if type(v) is int and 0 < v <= NUMBER_MAX), 0)

    def served(self, now: int) -> ServedModel:
        context = self.number(*CONTEXT_FIELDS)
        return ServedModel(
            name=self.name,
            aliases=(),
            facts=self._facts(self.number("n_ctx_train") or context),
            bytes=self.number("size"),
            context_length=context,
            kv_type="unknown",
            slots=SLOTS,
            vision=True,  # unknown: who cannot see says so itself
            created=now,
        )

    def _facts(self, context_length: int) -> ModelFacts:
        return ModelFacts(
            architecture=self.text("family") or "unknown",
            parameters=self.number("n_params"),
            quantisation=self.text("quantization_level") or "unknown",
            context_length=context_length,
            embedding_length=self.number("n_embd"),
            vocabulary=self.number("n_vocab"),
            weights_bytes=self.number("size"),
            kv_heads=(),
            key_length=0,
            value_length=0,
            sliding_window=0,
            sliding_layers=(),
            recurrent_bytes=0,
            experts=0,
            experts_used=0,
            chat_template=None,
            pooling=_pooling(self.name),
        )


def _pooling(name: str) -> str | None:
    """No server tells which models only embed or rank; names do (`nomic-embed-text`, `bge-reranker`)."""
    if "rerank" in name.lower():
        return "rank"
    return "mean" if "embed" in name.lower() else None
