"""Text as chunks of tokens that are computed from an empty cache, and the context that computes them."""

import os
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from mesh_llm.engine.experts.settings import CHUNK_TOKENS, Loading
from mesh_llm.engine.llama.context import Context, ContextSettings, rows_of
from mesh_llm.engine.llama.library import load_library
from mesh_llm.engine.llama.model import Model, ModelSettings
from mesh_llm.engine.llama.tokenizer import Tokenizer
from mesh_llm.engine.llama.watching import Watching
from mesh_llm.engine.parent import Parent

PASSAGE_CHARACTERS = 8192
"""16 for each token of a chunk, where English has four or five."""

CHUNK_TOKENS_MIN = 32
"""Less is no text."""


def load(loading: Loading, parent: Parent) -> Model:
    """Raises EngineFailed."""
    settings = ModelSettings(Path(loading.model_path), loading.gpu_layers, repacks=loading.repacks)
    return Model(load_library(os.environ), settings, parent.tell_loaded)


def opened(model: Model, threads: int, outputs: int, watching: Watching | None = None) -> Context:
    """For one chunk at a time. Raises EngineFailed."""
    settings = ContextSettings(CHUNK_TOKENS, CHUNK_TOKENS, sequences=1, threads=threads, outputs=outputs)
    return Context(model, settings, watching)


def chunks_of(model: Model, passages: Iterable[str]) -> list[list[int]]:
    """Each of CHUNK_TOKENS, with what the vocabulary begins a text with; passages of fewer than
    CHUNK_TOKENS_MIN are left out."""
    tokenizer = Tokenizer(model)
    found: list[list[int]] = []
    for passage in passages:
        tokens = tokenizer.tokenize(passage, add_special=False, parse_special=False)
        if tokenizer.adds_beginning:
            tokens.insert(0, tokenizer.beginning)
        if len(tokens) >= CHUNK_TOKENS_MIN:
            found.append(tokens[:CHUNK_TOKENS])
    return found


def compute(context: Context, tokens: Sequence[int], first_output: int) -> None:
    """Of one chunk; logits can be asked for from `first_output` on. Raises EngineFailed."""
    context.clear()
    count = len(tokens)
    outputs = np.zeros(count, np.int8)
    outputs[first_output:] = 1
    context.decode(rows_of(range(count)), rows_of([0] * count), tokens=rows_of(tokens), outputs=outputs)
