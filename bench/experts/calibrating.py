"""What it costs to rank experts, over reading the same text: `python -m bench.experts.calibrating MODEL`.

Chunks of 512 tokens are computed in turns, once plainly as a server reads a prompt (the last row is an
output) and once as `engine/experts` measures, in one process on the same weights. Prints, as JSON, seconds of
the processor and of the clock for both, and the median ratio of neighbours; on a busy machine believe the
first.
"""

import argparse
import json
import os
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

from mesh_llm.engine.child import ENVIRONMENT
from mesh_llm.engine.experts.chunks import PASSAGE_CHARACTERS, chunks_of, compute, opened
from mesh_llm.engine.experts.saliency import Saliency
from mesh_llm.engine.experts.settings import CHUNK_TOKENS
from mesh_llm.engine.llama.library import load_library
from mesh_llm.engine.llama.model import Model, ModelSettings
from mesh_llm.engine.llama.watching import Watching
from mesh_llm.models.experts.detection import detect
from mesh_llm.models.experts.texts import Half, passages
from mesh_llm.models.gguf.header import read_file_header

Arm = Callable[[list[int]], None]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", type=Path)
    parser.add_argument("--chunks", type=int, default=8)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--gpu-layers", type=int, default=0)
    options = parser.parse_args()
    if any(os.environ.get(name) != value for name, value in ENVIRONMENT.items()):
        environment = {**os.environ, **ENVIRONMENT}
        os.execve(
            sys.executable, [sys.executable, "-m", "bench.experts.calibrating", *sys.argv[1:]], environment
        )
    model = Model(load_library(os.environ), ModelSettings(options.model, options.gpu_layers))
    chunks = chunks_of(model, passages(Half.CALIBRATION, options.chunks + 1, PASSAGE_CHARACTERS))
    plain, measuring = arms(model, options.model, options.threads)
    for arm in (plain, measuring):
        arm(chunks[0])  # weights are read, graphs are built
    times = [(taken(plain, chunk), taken(measuring, chunk)) for chunk in chunks[1:]]
    print(json.dumps(told(times), indent=1))


def arms(model: Model, path: Path, threads: int) -> tuple[Arm, Arm]:
    shape = detect([read_file_header(path)])
    assert shape is not None, f"{path} has no experts"
    architecture = model.metadata("general.architecture") or ""
    saliency = Saliency(architecture, shape.layers, shape.experts)
    watched = opened(model, threads, CHUNK_TOKENS, Watching(model.library, saliency.is_wanted, saliency.see))
    bare = opened(model, threads, 1)

    def measure(chunk: list[int]) -> None:
        saliency.begin(len(chunk))
        compute(watched, chunk, first_output=0)
        saliency.check()

    def read(chunk: list[int]) -> None:
        compute(bare, chunk, first_output=len(chunk) - 1)
        bare.logits(len(chunk) - 1)

    return read, measure


def taken(arm: Arm, chunk: list[int]) -> tuple[float, float]:
    """Seconds of the processor, and of the clock."""
    begun = time.process_time(), time.perf_counter()
    arm(chunk)
    return time.process_time() - begun[0], time.perf_counter() - begun[1]


def told(times: list[tuple[tuple[float, float], tuple[float, float]]]) -> dict[str, object]:
    found: dict[str, object] = {"tokens": CHUNK_TOKENS * len(times)}
    for place, name in enumerate(("processor", "clock")):
        plain = [each[0][place] for each in times]
        measured = [each[1][place] for each in times]
        ratios = [other / one for one, other in zip(plain, measured, strict=True)]
        found[name] = {
            "plain_s": round(sum(plain), 2),
            "measuring_s": round(sum(measured), 2),
            "ratio": round(statistics.median(ratios), 3),
        }
    return found


if __name__ == "__main__":
    main()
