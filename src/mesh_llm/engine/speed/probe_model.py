"""A model of random weights that only takes time: what `speed.py` computes a few tokens of.

An ordinary stage file of a llama, large enough that no cache of a processor holds it.
"""

from collections.abc import Iterator
from pathlib import Path
from random import Random

from mesh_llm.models.gguf.encoding import pack_key, pack_start, pack_tensor
from mesh_llm.models.gguf.tensors import STORAGE_TYPES, TensorInfo

LAYERS, WIDTH, FEED_FORWARD = 4, 2048, 5632
HEADS, KV_HEADS = 32, 4
"""Of TinyLlama's shape: 25 MB a layer in Q4_0."""

F32, Q4_0 = STORAGE_TYPES[0], STORAGE_TYPES[2]
SCALE = b"\x25\x1a"
"""0.003 as a float of 16 bits: no activation overflows."""

ALIGNMENT = 32

KEYS = {
    "general.architecture": "llama",
    "general.name": "probe",
    "llama.block_count": LAYERS,
    "llama.context_length": 512,
    "llama.embedding_length": WIDTH,
    "llama.feed_forward_length": FEED_FORWARD,
    "llama.attention.head_count": HEADS,
    "llama.attention.head_count_kv": KV_HEADS,
    "llama.attention.layer_norm_rms_epsilon": 1e-5,
    "llama.rope.dimension_count": WIDTH // HEADS,
    "llama.vocab_size": 1,
    "tokenizer.ggml.model": "no_vocab",
}

MATRICES = {
    "attn_q": (WIDTH, WIDTH),
    "attn_k": (WIDTH, WIDTH * KV_HEADS // HEADS),
    "attn_v": (WIDTH, WIDTH * KV_HEADS // HEADS),
    "attn_output": (WIDTH, WIDTH),
    "ffn_gate": (WIDTH, FEED_FORWARD),
    "ffn_up": (WIDTH, FEED_FORWARD),
    "ffn_down": (FEED_FORWARD, WIDTH),
}
"""Of each layer: columns and rows."""


def write(path: Path, chance: Random) -> int:
    """Returns the bytes of the weights that each token goes through. Raises OSError."""
    tensors = list(_tensors())
    header = pack_start(len(tensors), len(KEYS))
    header += b"".join(pack_key(key, value) for key, value in KEYS.items())
    header += b"".join(map(pack_tensor, tensors))
    block = Q4_0.block_bytes - len(SCALE)
    row = b"".join(SCALE + chance.randbytes(block) for _ in range(FEED_FORWARD // Q4_0.block_elements))
    with path.open("wb") as file:
        file.write(header + bytes(-len(header) % ALIGNMENT))
        for tensor in tensors:
            pattern = row if tensor.storage is Q4_0 else b"\x00\x00\x80\x3f"  # one as a float
            whole, rest = divmod(tensor.bytes, len(pattern))
            file.write(pattern * whole + pattern[:rest] + bytes(-tensor.bytes % ALIGNMENT))
    return sum(tensor.bytes for tensor in tensors)


def _tensors() -> Iterator[TensorInfo]:
    offset = 0
    sizes = {"token_embd.weight": (WIDTH, 1), "output_norm.weight": (WIDTH,)}
    for layer in range(LAYERS):
        sizes |= {f"blk.{layer}.{norm}.weight": (WIDTH,) for norm in ("attn_norm", "ffn_norm")}
        sizes |= {f"blk.{layer}.{name}.weight": sides for name, sides in MATRICES.items()}
    for name, sides in sizes.items():
        storage = Q4_0 if len(sides) == 2 else F32
        count = sides[0] * (sides[1] if len(sides) == 2 else 1)
        size = count // storage.block_elements * storage.block_bytes
        yield TensorInfo(name, sides, storage, offset, size)
        offset += size + -size % ALIGNMENT
