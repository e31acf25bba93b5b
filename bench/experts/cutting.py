"""How fast a cut is written, against plain copying: `python -m bench.experts.cutting [MODEL.gguf]`.

Copying is `shutil.copyfile` and `fsync` of as many bytes as the cut has. Both read a file that is in the
page cache and end with all on disk; they take turns, and what counts is the ratio of medians. Without a model
one is made up: layers of 64 experts in Q4_K, 0.9 MB a matrix as in Qwen3-30B-A3B.
"""

import argparse
import asyncio
import os
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from random import Random

from mesh_llm.core.experts import ExpertRanking, Kept, best
from mesh_llm.models.experts.detection import detect
from mesh_llm.models.experts.layout import cut_layout
from mesh_llm.models.gguf.contents import Header, Scalar
from mesh_llm.models.gguf.encoding import pack_key, pack_start, pack_tensor
from mesh_llm.models.gguf.header import read_file_header
from mesh_llm.models.gguf.tensors import STORAGE_TYPES, TensorInfo
from mesh_llm.models.places import ModelPlaces
from mesh_llm.models.stages.composition import FileLayout
from mesh_llm.models.stages.made_files import MadeFiles
from mesh_llm.models.stages.ranges import FileRanges

EXPERTS, USED, WIDTH, NEURONS = 64, 8, 2048, 768
MATRICES = {"gate": (WIDTH, NEURONS), "up": (WIDTH, NEURONS), "down": (NEURONS, WIDTH)}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", type=Path, nargs="?")
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--share", type=float, default=0.7, help="of the experts that are kept")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        model = arguments.model or made_up(place / "model.gguf", arguments.layers)
        parts = [read_file_header(model)]
        kept = drawn(parts, arguments.share)
        layout = cut_layout(parts, kept)
        plain = place / "plain"
        with model.open("rb") as source, plain.open("wb") as target:
            shutil.copyfileobj(source, target)
        os.truncate(plain, layout.bytes)
        copying, cutting = in_turns(
            [partial(copy, plain), partial(cut, layout, model)], place / "new", arguments.rounds
        )
    gigabytes = layout.bytes / 1e9
    print(
        f"{gigabytes:.2f} GB, {kept.count} experts a layer: copied in {copying:.2f} s, "
        f"cut in {cutting:.2f} s,"
    )
    print(f"which is {copying / cutting:.2f} of the speed of copying")
    return 0


def drawn(parts: Sequence[Header], share: float) -> Kept:
    shape = detect(parts)
    if shape is None:
        raise SystemExit(f"{parts[0].name} is no mixture of experts.")
    chance = Random(0)
    lists = {layer: tuple(chance.sample(range(shape.experts), shape.experts)) for layer in shape.layers}
    count = shape.at_most(int(share * shape.experts)) or shape.experts
    return best(ExpertRanking.of(lists, "drawn"), count, shape)


def copy(source: Path, target: Path) -> None:
    shutil.copyfile(source, target)
    with target.open("rb") as file:
        os.fsync(file.fileno())


def cut(layout: FileLayout, model: Path, target: Path) -> None:
    """As nodes do: written, and read once more for its seal."""
    asyncio.run(_made(layout, model, target))


async def _made(layout: FileLayout, model: Path, target: Path) -> None:
    made = MadeFiles(ModelPlaces.from_environment({"MESH_LLM_MODELS": str(target.parent)}, target.parent))
    async with made.file(target, layout, FileRanges([model]), "ab" * 32):
        pass


def in_turns(works: Sequence[Callable[[Path], None]], target: Path, rounds: int) -> list[float]:
    """Seconds of each, the median of so many rounds; each writes a file that is not there yet."""
    seconds: list[list[float]] = [[] for _ in works]
    for _ in range(rounds):
        for work, taken in zip(works, seconds, strict=True):
            target.unlink(missing_ok=True)
            began = time.perf_counter()
            work(target)
            taken.append(time.perf_counter() - began)
    return [statistics.median(taken) for taken in seconds]


def made_up(path: Path, layers: int) -> Path:
    """A file with the tensors of a mixture; nobody could run it."""
    sizes: dict[str, tuple[int, ...]] = {"token_embd.weight": (WIDTH, 8192)}
    for layer in range(layers):
        sizes[f"blk.{layer}.attn_q.weight"] = (WIDTH, WIDTH)
        sizes[f"blk.{layer}.ffn_gate_inp.weight"] = (WIDTH, EXPERTS)
        sizes |= {f"blk.{layer}.ffn_{name}_exps.weight": (*size, EXPERTS) for name, size in MATRICES.items()}
    tensors: list[TensorInfo] = []
    end = 0
    for name, size in sizes.items():
        tensors.append(tensor := placed(name, size, end))
        end += -(-tensor.bytes // 32) * 32
    keys: dict[str, Scalar] = {"general.architecture": "qwen3moe", "qwen3moe.block_count": layers}
    keys |= {"qwen3moe.expert_count": EXPERTS, "qwen3moe.expert_used_count": USED}
    head = pack_start(len(tensors), len(keys)) + b"".join(pack_key(key, keys[key]) for key in keys)
    head += b"".join(pack_tensor(tensor) for tensor in tensors)
    with path.open("wb") as file:
        file.write(head + bytes(-len(head) % 32))
        block = os.urandom(1 << 20)
        for _ in range(end // len(block)):
            file.write(block)
        file.write(block[: end % len(block)])
    return path


def placed(name: str, size: tuple[int, ...], offset: int) -> TensorInfo:
    storage = STORAGE_TYPES[0 if "inp" in name else 12]
    elements = 1
    for each in size:
        elements *= each
    return TensorInfo(name, size, storage, offset, elements // storage.block_elements * storage.block_bytes)


if __name__ == "__main__":
    raise SystemExit(main())
