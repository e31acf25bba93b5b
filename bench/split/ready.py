"""How soon a stage is ready, against plain reading of its bytes: `python -m bench.split.ready MODEL.gguf`.

The first stage of two. Its file is put out of the page cache before each turn, so that both read the disk;
the two take turns, and what counts is the ratio of medians. Linux only.
"""

import argparse
import asyncio
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

from bench.split.candidates import Load, identity_of, layers_of, model_at, stage_settings
from mesh_llm.engine.stage.stage_worker import StageWorker
from mesh_llm.models.gguf.header import read_file_header
from mesh_llm.models.places import ModelPlaces
from mesh_llm.models.stages.ranges import FileRanges
from mesh_llm.models.stages.store import StageStore

LOAD = Load(context=4096, slots=1, batch=128)
PIECE_BYTES = 1 << 24


async def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", type=Path)
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    model = model_at(arguments.model.resolve())
    headers = [read_file_header(file) for file in model.files]
    layers = layers_of(model, 2)[0]
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        store = StageStore(ModelPlaces(place, place, place))
        kept = store.stage(
            identity_of(model), layers, is_head=False, parts=headers, source=FileRanges(model.files)
        )
        async with kept as file:
            settings = stage_settings(model, file, layers, LOAD, place, 1)

            async def start() -> float:
                began = time.perf_counter()
                async with StageWorker.start(settings, os.environ, lambda _: None) as worker:
                    await worker.wait_until_ready()
                    return time.perf_counter() - began

            async def read() -> float:
                began = time.perf_counter()
                await asyncio.to_thread(_read, file)
                return time.perf_counter() - began

            reading, starting = await in_turns(file, [read, start], arguments.rounds)
            gigabytes = file.stat().st_size / 1e9
    print(f"{gigabytes:.2f} GB: read in {reading:.2f} s, ready in {starting:.2f} s: {starting / reading:.2f}")
    return 0


async def in_turns(file: Path, works: list[Callable[[], Awaitable[float]]], rounds: int) -> list[float]:
    """Median seconds of each, from a cold start."""
    seen: list[list[float]] = [[] for _ in works]
    for _ in range(rounds):
        for work, times in zip(works, seen, strict=True):
            _put_out_of_the_cache(file)
            times.append(await work())
    return [statistics.median(times) for times in seen]


def _put_out_of_the_cache(file: Path) -> None:
    with file.open("rb") as opened:
        os.fsync(opened.fileno())
        os.posix_fadvise(opened.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def _read(file: Path) -> None:
    with file.open("rb", buffering=0) as opened:
        while opened.read(PIECE_BYTES):
            pass


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
