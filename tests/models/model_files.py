"""Small GGUF files that are whole models to everybody but an engine."""

import hashlib
import os
import random
from collections.abc import Sequence
from pathlib import Path

from mesh_llm.models.places import ModelPlaces
from tests.models.gguf.gguf_bytes import STRING, U16, U32, Tensor, gguf_bytes, scalar

F32_BYTES = 4


def model_bytes(size: int = 100_000, seed: int = 0, pairs: Sequence[tuple[str, bytes]] = ()) -> bytes:
    """About `size` bytes, other ones for each seed."""
    elements = size // F32_BYTES // 32 * 32
    keys = [
        ("general.architecture", scalar(STRING, "llama")),
        ("llama.block_count", scalar(U32, 2)),
        ("llama.embedding_length", scalar(U32, 64)),
        ("llama.attention.head_count", scalar(U32, 8)),
        ("llama.context_length", scalar(U32, 4096)),
        *pairs,
    ]
    head = gguf_bytes(keys, [Tensor(f"w{seed}", (elements,))])
    return head + random.Random(seed).randbytes(elements * F32_BYTES)


def split_model_bytes(count: int, size: int = 50_000) -> list[bytes]:
    """The parts of one model."""

    def part(number: int) -> bytes:
        split = [("split.no", scalar(U16, number)), ("split.count", scalar(U16, count))]
        return model_bytes(size, number, split)

    return [part(number) for number in range(count)]


def cached(places: ModelPlaces, repository: str, path: str, data: bytes, commit: str = "a" * 40) -> Path:
    """A file in the hub's cache, as Hugging Face's own tools leave it; `commit` becomes the current one."""
    folder = places.hub_cache / f"models--{repository.replace('/', '--')}"
    blob = folder / "blobs" / hashlib.sha256(data).hexdigest()
    link = folder / "snapshots" / commit / path
    for each in (blob, link, folder / "refs" / "main"):
        each.parent.mkdir(parents=True, exist_ok=True)
    blob.write_bytes(data)
    link.symlink_to(os.path.relpath(blob, link.parent))
    (folder / "refs" / "main").write_text(commit)
    return link
