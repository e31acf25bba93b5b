"""A mixture of experts that speaks English, made of SmolLM2-135M: 16 experts of 96 neurons, 10 of them used.

`python -m tests.experts.moe_fixture SOURCE TARGET` makes it in a process of its own, which loads llama.cpp;
`kept_mixture` makes it once and keeps it. Nothing is trained and nothing fetched: the dense model reads
English, its neurons are put into groups that work together (`dissecting.py`), and llama.cpp takes the result
for a Mixtral. The same source, Python and instruction set give the same bytes.

It is harsher than mixtures that were trained as such: 62 % of the experts are used for each token, and no
neuron has learned to be left out. What is better than what carries over to real ones; figures do not.
"""

import argparse
import hashlib
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gguf
import numpy as np
from filelock import FileLock

from mesh_llm.engine.llama.context import Context, ContextSettings, rows_of
from mesh_llm.engine.llama.library import load_library
from mesh_llm.engine.llama.model import Model, ModelSettings
from mesh_llm.engine.llama.tokenizer import Tokenizer
from mesh_llm.engine.llama.watching import Computed, Watching
from tests.experts import english
from tests.experts.dissecting import Mixture, dissected

METHOD = 1
"""Counted up whenever the bytes it makes change."""

EXPERTS, USED = 16, 10
TOKENS = 8192
RUN_TOKENS = 512
WATCHED = ("ffn_norm", "ffn_swiglu")
"""What goes into a feed-forward layer, and what comes out of its activation."""
ROOT = Path(__file__).parent.parent.parent
Q8_0 = gguf.GGMLQuantizationType.Q8_0

Activations = dict[str, list[np.ndarray]]


def mixture_path(source: Path, folder: Path) -> Path:
    """Where the mixture made of `source` is kept: another method or source is another file."""
    told = hashlib.sha256(f"{METHOD} {EXPERTS} {USED} {TOKENS} ".encode())
    told.update(source.read_bytes())
    return folder / f"SmolLM2-MoE-{told.hexdigest()[:16]}.gguf"


def kept_mixture(source: Path, folder: Path) -> Path:
    """The mixture, made unless it is there. One process makes it and others wait; what is there is whole."""
    target = mixture_path(source, folder)
    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(folder / "making.lock"):
        if not target.exists():
            for other in folder.glob("SmolLM2-MoE-*"):
                other.unlink()
            command = [sys.executable, "-P", "-m", "tests.experts.moe_fixture", str(source), str(target)]
            environment = {**os.environ, "PYTHONPATH": str(ROOT), "GOMP_SPINCOUNT": "0"}
            subprocess.run(command, check=True, cwd=ROOT, env=environment)
    return target


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("source", type=Path)
    parser.add_argument("target", type=Path)
    parser.add_argument("--used", type=int, default=USED, help="experts for each token")
    parser.add_argument("--tokens", type=int, default=TOKENS, help="that the dense model reads")
    arguments = parser.parse_args()
    part = arguments.target.with_suffix(".part")
    started = time.perf_counter(), time.process_time()
    _convert(arguments.source, part, arguments.used, arguments.tokens)
    part.rename(arguments.target)
    wall, processor = time.perf_counter() - started[0], time.process_time() - started[1]
    _say(f"made in {wall:.0f} s, {processor:.0f} s of processor time\n")


def _say(text: str) -> None:
    sys.stderr.write(f"\rmixture of experts for tests: {text}")
    sys.stderr.flush()


def _convert(source: Path, target: Path, used: int, tokens: int) -> None:
    reader = gguf.GGUFReader(source)
    layers = int(_value(reader, "llama.block_count"))
    seen = _read_english(source, layers, tokens)
    writer = gguf.GGUFWriter(target, "llama")
    _add_keys(writer, reader, used)
    old = {tensor.name: tensor for tensor in reader.tensors}
    for name, tensor in old.items():
        if ".ffn_" not in name or ".ffn_norm." in name:
            writer.add_tensor(name, tensor.data, raw_dtype=tensor.tensor_type)
    for layer in range(layers):
        _say(f"layer {layer + 1} of {layers}     ")
        inputs, hidden = (np.concatenate(seen.pop(f"{name}-{layer}")) for name in WATCHED)
        gate, up, down = (old[f"blk.{layer}.ffn_{part}.weight"] for part in ("gate", "up", "down"))
        mixture = dissected(inputs, hidden, _floats(gate), _floats(down), EXPERTS, used)
        for name, data, kind in _expert_tensors(mixture, gate, up, used):
            writer.add_tensor(f"blk.{layer}.{name}.weight", data, raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _read_english(source: Path, layers: int, tokens: int) -> Activations:
    """What goes into each feed-forward layer and what comes out of its activation, over `tokens`."""
    library = load_library(os.environ)
    model = Model(library, ModelSettings(source, gpu_layers=0))
    seen: Activations = {f"{name}-{layer}": [] for name in WATCHED for layer in range(layers)}

    def keep(tensor: Computed) -> bool:
        seen[tensor.name].append(tensor.floats().copy())
        return tensor.name != f"ffn_swiglu-{layers - 1}"  # what comes after it nobody needs

    settings = ContextSettings(RUN_TOKENS, RUN_TOKENS, 1, threads=os.cpu_count() or 1)
    context = Context(model, settings, Watching(library, seen.__contains__, keep))
    tokenizer = Tokenizer(model)
    for read, chunk in enumerate(_runs(tokenizer, tokens)):
        _say(f"{read * RUN_TOKENS} of {tokens} tokens read")
        context.clear()
        context.decode(rows_of(range(RUN_TOKENS)), rows_of([0] * RUN_TOKENS), tokens=rows_of(chunk))
    context.close()
    model.close()
    return seen


def _runs(tokenizer: Tokenizer, tokens: int) -> Iterator[list[int]]:
    for kind in (english.reference, english.docstrings):
        text = kind(english.Half.CALIBRATION)
        whole = tokenizer.tokenize(text, add_special=False, parse_special=False)
        yield from english.chunks(whole, tokens // RUN_TOKENS // 2, RUN_TOKENS)


def _add_keys(writer: gguf.GGUFWriter, reader: gguf.GGUFReader, used: int) -> None:
    neurons = int(_value(reader, "llama.feed_forward_length"))
    changed = {
        "general.name": f"SmolLM2 135M as {EXPERTS} experts",
        "llama.feed_forward_length": neurons // EXPERTS,
    }
    for key, entry in reader.fields.items():
        if not key.startswith("GGUF.") and key != "general.architecture":
            of = entry.types[1] if entry.types[0] == gguf.GGUFValueType.ARRAY else None
            writer.add_key_value(key, changed.get(key, entry.contents()), entry.types[0], of)
    writer.add_expert_count(EXPERTS)
    writer.add_expert_used_count(used)


def _value(reader: gguf.GGUFReader, key: str) -> Any:
    entry = reader.get_field(key)
    if entry is None:
        raise ValueError(f"the source has no {key}: it must be of the architecture llama")
    return entry.contents()


def _floats(tensor: gguf.ReaderTensor) -> np.ndarray:
    return gguf.quants.dequantize(tensor.data, tensor.tensor_type).astype(np.float32)


def _expert_tensors(
    mixture: Mixture, gate: gguf.ReaderTensor, up: gguf.ReaderTensor, used: int
) -> Iterator[tuple[str, np.ndarray, gguf.GGMLQuantizationType | None]]:
    """Gate and up rows are moved as they lie, without another rounding. The chosen weights add up to 1 in
    llama.cpp, so what they weigh must be `used` times as large."""
    yield "ffn_gate_inp", mixture.router, None
    yield "ffn_gate_exps", gate.data[mixture.members], gate.tensor_type
    yield "ffn_up_exps", up.data[mixture.members], up.tensor_type
    stacked = np.ascontiguousarray(mixture.down[:, mixture.members].transpose(1, 0, 2)) * np.float32(used)
    yield "ffn_down_exps", gguf.quants.quantize(stacked, Q8_0), Q8_0


if __name__ == "__main__":
    main()
