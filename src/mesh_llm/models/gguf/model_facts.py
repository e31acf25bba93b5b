"""Headers of all parts of one model -> what planning and the API must know of it.

Counterpart of `load_hparams` in llama.cpp. Pure: it opens nothing. An architecture that is not known here
still gives facts, on the safe side.
"""

from collections.abc import Mapping, Sequence

from mesh_llm.core.errors import ModelDamaged
from mesh_llm.core.model import ModelFacts
from mesh_llm.models.gguf import architectures
from mesh_llm.models.gguf.contents import Header, Value
from mesh_llm.models.gguf.keys import Keys
from mesh_llm.models.gguf.layers import layers_of

_GUESSED = 1024
"""llama.h: `LLAMA_FTYPE_GUESSED`, a mark on a file type that was not written in the file."""

_NOT_SERVED: dict[str, str] = {
    "mmproj": "it is the projector for pictures that belongs to a model: name the model itself",
    "clip": "it is the projector for pictures that belongs to a model: name the model itself",
    "adapter": "it is a LoRA adapter that belongs to a model: name the model itself",
    "imatrix": "it holds statistics for quantising: name the model itself",
    "vocab": "it holds a vocabulary only: name the model itself",
}


def facts_of(parts: Sequence[Header]) -> ModelFacts:
    """Facts of one model from all its parts in order. Raises ModelDamaged: parts or keys are missing."""
    check_parts(parts)
    keys = Keys(parts[0].name, parts[0].metadata)
    _check_is_model(keys)
    layers = layers_of(keys)
    tensors = [tensor for part in parts for tensor in part.tensors]
    width = keys.required_number("embedding_length")
    heads = keys.number("attention.head_count")
    head_length = width // heads if heads else 0
    latent = keys.number("attention.key_length_mla") > 0 and keys.number("attention.value_length_mla") > 0
    return ModelFacts(
        architecture=keys.architecture,
        parameters=sum(tensor.elements for tensor in tensors),
        quantisation=_quantisation(keys),
        context_length=keys.number("context_length"),
        embedding_length=width,
        vocabulary=keys.count("tokenizer.ggml.tokens") or keys.number("vocab_size"),
        weights_bytes=sum(tensor.bytes for tensor in tensors),
        kv_heads=layers.kv_heads,
        key_length=keys.number("attention.key_length", head_length),
        # With MLA one latent vector is cached as keys, and values are cut from it (`has_v = !is_mla`).
        value_length=0 if latent else keys.number("attention.value_length", head_length),
        sliding_window=layers.sliding_window,
        sliding_layers=layers.sliding_layers,
        recurrent_bytes=layers.recurrent_bytes,
        experts=keys.number("expert_count"),
        experts_used=keys.number("expert_used_count"),
        chat_template=keys.text("tokenizer.chat_template"),
        pooling=architectures.POOLING.get(keys.number("pooling_type")),
        heads=heads,
        feed_forward_length=_feed_forward_length(keys),
        key_length_sliding=keys.number("attention.key_length_swa"),
        value_length_sliding=0 if latent else keys.number("attention.value_length_swa"),
        indexer_length=_indexer_length(keys),
    )


def _quantisation(keys: Keys) -> str:
    number = keys.general_number("general.file_type")
    return "unknown" if number is None else architectures.FILE_TYPES.get(number & ~_GUESSED, "unknown")


def _feed_forward_length(keys: Keys) -> int:
    shared = keys.number("expert_shared_feed_forward_length")
    experts = keys.number("expert_feed_forward_length") * keys.number("expert_used_count")
    return max(keys.number("feed_forward_length"), experts + shared)


def _indexer_length(keys: Keys) -> int:
    """llama-memory-hybrid-idx.cpp: with a pool of keys a row holds up to three of them."""
    pooled = keys.number("attention.indexer.kpool") > 0 or keys.architecture == "qwen4exp"
    return keys.number("attention.indexer.key_length") * (3 if pooled else 1)


def _check_is_model(keys: Keys) -> None:
    for word in (keys.text("general.type"), keys.architecture):
        if word in _NOT_SERVED:
            raise ModelDamaged(f"{keys.name} is no model that can be served: {_NOT_SERVED[word]}.")


def check_parts(parts: Sequence[Header]) -> None:
    """A split file has `split.count` parts, each knows its place, and together they have all tensors."""
    count = max(1, _split_number(parts[0].metadata, "split.count"))
    if count != len(parts):
        raise ModelDamaged(
            f"{parts[0].name} belongs to a model of {count} files, here are {len(parts)}:"
            " fetch the missing ones."
        )
    if count == 1:
        return
    for number, part in enumerate(parts):
        place, of = _split_number(part.metadata, "split.no"), _split_number(part.metadata, "split.count")
        if (place, of) != (number, count):
            raise ModelDamaged(
                f"{part.name} says it is part {place + 1} of {of}, expected was {number + 1} of {count}:"
                " the files do not belong together. Fetch the model again."
            )
    _check_tensors(parts)


def _check_tensors(parts: Sequence[Header]) -> None:
    names = [tensor.name for part in parts for tensor in part.tensors]
    expected = _split_number(parts[0].metadata, "split.tensors.count")
    if len(set(names)) != len(names) or len(names) != (expected or len(names)):
        raise ModelDamaged(
            f"{parts[0].name}: its {len(parts)} files have {len(names)} tensors, {len(set(names))} of them"
            f" different, {expected} announced: the files do not belong together. Fetch the model again."
        )


def _split_number(metadata: Mapping[str, Value], key: str) -> int:
    value = metadata.get(key, 0)
    return value if isinstance(value, int) else 0
