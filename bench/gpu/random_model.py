"""A llama of random Q4_0 weights, as large as one likes: `python -m bench.gpu.random_model FILE --layers 64`.

Speed does not depend on what the weights say. The vocabulary is made up: 256 bytes and words of no text.
"""

import argparse
from pathlib import Path

import gguf
import numpy as np
import numpy.typing as npt

BLOCK_ELEMENTS, BLOCK_BYTES = 32, 18
SCALE = np.frombuffer(np.float16(0.003).tobytes(), np.uint8)
"""Of every block: small enough that no activation overflows."""

WIDTH, FEED_FORWARD, HEADS, KV_HEADS, HEAD = 5120, 27_648, 40, 8, 128
VOCABULARY = 152_064
"""With 64 layers 32.8 billion parameters, as Qwen 2.5 32B."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("file", type=Path)
    parser.add_argument("--layers", type=int, default=64)
    arguments = parser.parse_args()
    write(arguments.file, arguments.layers)


def write(path: Path, layers: int) -> None:
    chance = np.random.default_rng(0)
    writer = gguf.GGUFWriter(path, "llama")
    _describe(writer, layers)
    ones = np.ones(WIDTH, np.float32)
    matrices = {name: _random(chance, *shape) for name, shape in _shapes().items()}
    for name in ("token_embd", "output"):
        _add(writer, f"{name}.weight", _random(chance, VOCABULARY, WIDTH))
    writer.add_tensor("output_norm.weight", ones)
    for layer in range(layers):  # all alike: what differs costs time to draw and tells nothing more
        for norm in ("attn_norm", "ffn_norm"):
            writer.add_tensor(f"blk.{layer}.{norm}.weight", ones)
        for name, matrix in matrices.items():
            _add(writer, f"blk.{layer}.{name}.weight", matrix)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _describe(writer: gguf.GGUFWriter, layers: int) -> None:
    writer.add_name("random")
    writer.add_file_type(2)
    writer.add_block_count(layers)
    writer.add_context_length(32_768)
    writer.add_embedding_length(WIDTH)
    writer.add_feed_forward_length(FEED_FORWARD)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(KV_HEADS)
    writer.add_rope_dimension_count(HEAD)
    writer.add_rope_freq_base(1e6)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_vocab_size(VOCABULARY)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("default")
    tokens = _byte_tokens()
    tokens += [f"\u0120w{number}" for number in range(VOCABULARY - len(tokens))]
    writer.add_token_list(tokens)
    writer.add_token_types([gguf.TokenType.NORMAL] * VOCABULARY)
    writer.add_token_merges([f"{tokens[0]} {tokens[1]}"])
    writer.add_bos_token_id(VOCABULARY - 2)
    writer.add_eos_token_id(VOCABULARY - 1)
    writer.add_add_bos_token(False)
    writer.add_chat_template("{% for message in messages %}{{ message.content }}{% endfor %}")


def _byte_tokens() -> list[str]:
    """GPT-2's printable stand-ins for the 256 bytes, in the order of the bytes."""
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    moved = iter(range(256, 512))
    return [chr(byte) if byte in plain else chr(next(moved)) for byte in range(256)]


def _shapes() -> dict[str, tuple[int, int]]:
    """Rows and columns."""
    return {
        "attn_q": (HEADS * HEAD, WIDTH),
        "attn_k": (KV_HEADS * HEAD, WIDTH),
        "attn_v": (KV_HEADS * HEAD, WIDTH),
        "attn_output": (WIDTH, HEADS * HEAD),
        "ffn_gate": (FEED_FORWARD, WIDTH),
        "ffn_up": (FEED_FORWARD, WIDTH),
        "ffn_down": (WIDTH, FEED_FORWARD),
    }


def _random(chance: np.random.Generator, rows: int, columns: int) -> npt.NDArray[np.uint8]:
    blocks = chance.integers(0, 256, (rows * columns // BLOCK_ELEMENTS, BLOCK_BYTES), np.uint8)
    blocks[:, : len(SCALE)] = SCALE
    return blocks.reshape(rows, -1)


def _add(writer: gguf.GGUFWriter, name: str, matrix: npt.NDArray[np.uint8]) -> None:
    writer.add_tensor(name, matrix, raw_dtype=gguf.GGMLQuantizationType.Q4_0)


if __name__ == "__main__":
    main()
