"""A llama of random weights, as large as one likes: `python -m bench.random_model FILE --size 32b`.

Speed does not depend on what the weights say. The vocabulary is made up: 256 bytes and words of no text.
"""

import argparse
from dataclasses import dataclass, replace
from pathlib import Path

import gguf
import numpy as np
import numpy.typing as npt

BLOCK_ELEMENTS = 32
SMALL = np.frombuffer(np.float16(0.003).tobytes(), np.uint8)
"""The scale of every block, so that no activation overflows."""


@dataclass(frozen=True, slots=True)
class Blocks:
    """A way to store 32 weights."""

    kind: gguf.GGMLQuantizationType
    bytes: int
    halves: int = 1
    """Numbers of 16 bits before the weights: a scale, and what is least."""


QUANTISATIONS = {
    "q4_0": Blocks(gguf.GGMLQuantizationType.Q4_0, 18),  # llama.cpp stores it anew for the CPU when it loads
    "q4_1": Blocks(gguf.GGMLQuantizationType.Q4_1, 20, 2),  # and this as it is
}


@dataclass(frozen=True, slots=True)
class Shape:
    layers: int
    width: int
    feed_forward: int
    heads: int
    kv_heads: int
    head: int
    vocabulary: int


SIZES = {
    "1b": Shape(22, 2048, 5632, 32, 4, 64, 32_000),  # 1.1 billion parameters, as TinyLlama
    "32b": Shape(64, 5120, 27_648, 40, 8, 128, 152_064),  # 32.8 billion, as Qwen 2.5 32B
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("file", type=Path)
    parser.add_argument("--size", choices=SIZES, default="32b")
    parser.add_argument("--quantisation", choices=QUANTISATIONS, default="q4_0")
    parser.add_argument("--layers", type=int, help="instead of those of the size")
    arguments = parser.parse_args()
    shape = SIZES[arguments.size]
    shape = replace(shape, layers=arguments.layers or shape.layers)
    write(arguments.file, shape, QUANTISATIONS[arguments.quantisation])


def write(path: Path, shape: Shape, blocks: Blocks) -> None:
    chance = np.random.default_rng(0)
    writer = gguf.GGUFWriter(path, "llama")
    _describe(writer, shape, blocks)
    ones = np.ones(shape.width, np.float32)
    matrices = {name: _random(chance, blocks, *sides) for name, sides in _matrices(shape).items()}
    for name in ("token_embd", "output"):
        _add(writer, blocks, f"{name}.weight", _random(chance, blocks, shape.vocabulary, shape.width))
    writer.add_tensor("output_norm.weight", ones)
    for layer in range(shape.layers):  # all alike: what differs costs time to draw and tells nothing more
        for norm in ("attn_norm", "ffn_norm"):
            writer.add_tensor(f"blk.{layer}.{norm}.weight", ones)
        for name, matrix in matrices.items():
            _add(writer, blocks, f"blk.{layer}.{name}.weight", matrix)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _describe(writer: gguf.GGUFWriter, shape: Shape, blocks: Blocks) -> None:
    writer.add_name("random")
    writer.add_file_type(2 if blocks.halves == 1 else 3)
    writer.add_block_count(shape.layers)
    writer.add_context_length(32_768)
    writer.add_embedding_length(shape.width)
    writer.add_feed_forward_length(shape.feed_forward)
    writer.add_head_count(shape.heads)
    writer.add_head_count_kv(shape.kv_heads)
    writer.add_rope_dimension_count(shape.head)
    writer.add_rope_freq_base(1e6)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_vocab_size(shape.vocabulary)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("default")
    tokens = _byte_tokens()
    tokens += [f"\u0120w{number}" for number in range(shape.vocabulary - len(tokens))]
    writer.add_token_list(tokens)
    writer.add_token_types([gguf.TokenType.NORMAL] * shape.vocabulary)
    writer.add_token_merges([f"{tokens[0]} {tokens[1]}"])
    writer.add_bos_token_id(shape.vocabulary - 2)
    writer.add_eos_token_id(shape.vocabulary - 1)
    writer.add_add_bos_token(False)
    writer.add_chat_template("{% for message in messages %}{{ message.content }}{% endfor %}")


def _byte_tokens() -> list[str]:
    """GPT-2's printable stand-ins for the 256 bytes, in the order of the bytes."""
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    moved = iter(range(256, 512))
    return [chr(byte) if byte in plain else chr(next(moved)) for byte in range(256)]


def _matrices(shape: Shape) -> dict[str, tuple[int, int]]:
    """Rows and columns."""
    width, feed_forward = shape.width, shape.feed_forward
    queries, keys = shape.heads * shape.head, shape.kv_heads * shape.head
    return {
        "attn_q": (queries, width),
        "attn_k": (keys, width),
        "attn_v": (keys, width),
        "attn_output": (width, queries),
        "ffn_gate": (feed_forward, width),
        "ffn_up": (feed_forward, width),
        "ffn_down": (width, feed_forward),
    }


def _random(chance: np.random.Generator, blocks: Blocks, rows: int, columns: int) -> npt.NDArray[np.uint8]:
    drawn = chance.integers(0, 256, (rows * columns // BLOCK_ELEMENTS, blocks.bytes), np.uint8)
    drawn[:, : len(SMALL) * blocks.halves] = np.tile(SMALL, blocks.halves)
    return drawn.reshape(rows, -1)


def _add(writer: gguf.GGUFWriter, blocks: Blocks, name: str, matrix: npt.NDArray[np.uint8]) -> None:
    writer.add_tensor(name, matrix, raw_dtype=blocks.kind)


if __name__ == "__main__":
    main()
