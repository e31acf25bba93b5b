"""Measures how fast weights are read: `python -m mesh_llm.engine.speed.child THREADS` prints bytes a second.

As stages compute, by llama.cpp on the processor or on the GPUs that it would use, with a model of random
weights. In a process of its own because it loads the engine.
"""

import os
import random
import statistics
import sys
import tempfile
import time
from pathlib import Path

from mesh_llm.core.errors import MeshError
from mesh_llm.engine.llama.context import Context, ContextSettings, rows_of
from mesh_llm.engine.llama.library import load_library
from mesh_llm.engine.llama.model import Model, ModelSettings
from mesh_llm.engine.parent import UNUSABLE
from mesh_llm.engine.speed import probe_model

TOKENS = 12
WARM_UP_TOKENS = 2


def main() -> int:
    with tempfile.TemporaryDirectory(prefix="mesh-llm-") as folder:
        path = Path(folder) / "probe.gguf"
        try:
            size = probe_model.write(path, random.Random(0))
            seconds = seconds_per_token(path, threads=int(sys.argv[1]))
        except (MeshError, OSError) as error:
            print(error, file=sys.stderr)  # noqa: T201
            return UNUSABLE
    print(size / seconds)  # noqa: T201
    return 0


def seconds_per_token(path: Path, threads: int) -> float:
    """The median of some. Raises EngineFailed."""
    model = Model(load_library(os.environ), ModelSettings(path))
    context = Context(model, ContextSettings(context=256, batch=1, sequences=1, threads=threads))
    times: list[float] = []
    for position in range(WARM_UP_TOKENS + TOKENS):
        begun = time.perf_counter()
        context.decode(rows_of([position]), rows_of([0]), tokens=rows_of([0]))
        context.logits(0)  # waits for devices that compute behind our back
        times.append(time.perf_counter() - begun)
    return statistics.median(times[WARM_UP_TOKENS:])


if __name__ == "__main__":
    sys.exit(main())
