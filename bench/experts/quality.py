"""What cuts of a mixture of experts cost in quality: `python -m bench.experts.quality MODEL.gguf`.

The model's experts are ranked three ways, its cuts are made for two nodes and for three, and each is judged
against the whole on the same held-out text. Everything that is measured is the product's own.

The mixture of the published table is the one that tests make:
`python -m tests.experts.moe_fixture SmolLM2-135M-Instruct.gguf MODEL.gguf`.
"""

import argparse
import asyncio
import os
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from mesh_llm.core.experts import ExpertLayout, ExpertRanking, ExpertShape, Kept, Quality, filled
from mesh_llm.core.ids import NodeId
from mesh_llm.engine.experts.calibrating import Calibration, measure
from mesh_llm.engine.experts.judging import judge, refer
from mesh_llm.engine.experts.saliency import best_first
from mesh_llm.engine.experts.settings import Loading
from mesh_llm.models.experts.cut_store import CutStore
from mesh_llm.models.experts.detection import detect
from mesh_llm.models.gguf.contents import Header
from mesh_llm.models.gguf.header import read_file_header
from mesh_llm.models.places import ModelPlaces
from mesh_llm.models.stages.ranges import FileRanges
from mesh_llm.planner.expert_deal import dealt

IDENTITY = "bec4" * 16
"""The cuts live for one run, and are of one model."""

ROOMS = ((12 / 16, 12 / 16), (11 / 16, 11 / 16, 10 / 16))
"""Of two nodes and of three, the share of the experts that each can keep."""

CHUNKS = 20
"""Of 512 tokens: 5,100 that are scored, five times what nodes judge by, and as many as a reference on the
disk may hold. Of the published mixture the ratio of one chunk has a standard deviation of 0.10."""

LAYOUTS: tuple[ExpertLayout, ...] = ("best", "shared")


@dataclass(frozen=True)
class Judge:
    """Of one model's cuts; each is made and measured once."""

    model: Path
    header: Header
    cuts: CutStore
    folder: Path
    threads: int
    chunks: int
    known: dict[str, Quality]

    async def quality(self, ranking: ExpertRanking, kept: Kept) -> Quality:
        if kept.digest not in self.known:
            source = FileRanges([self.model])
            async with self.cuts.cut(IDENTITY, ranking.digest, kept, [self.header], source) as path:
                self.known[kept.digest] = await judge(
                    self.loading(self.model),
                    self.loading(path),
                    identity=IDENTITY,
                    reference=self.reference,
                    chunks=self.chunks,
                )
            path.unlink()
        return self.known[kept.digest]

    @property
    def reference(self) -> Path:
        return self.folder / "reference"

    def loading(self, path: Path) -> Loading:
        return Loading(str(path), self.threads)


async def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", type=Path)
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--chunks", type=int, default=CHUNKS, help="of 512 tokens, to judge by")
    arguments = parser.parse_args()
    header = read_file_header(arguments.model)
    shape = detect([header])
    if shape is None:
        print(f"{arguments.model} is no mixture of experts")
        return 1
    loading = Loading(str(arguments.model), arguments.threads)
    calibration = await measure(arguments.model, shape, loading)
    with tempfile.TemporaryDirectory() as folder:
        places = ModelPlaces.from_environment({"MESH_LLM_MODELS": folder}, home=Path(folder))
        judge = Judge(
            arguments.model, header, CutStore(places), Path(folder), arguments.threads, arguments.chunks, {}
        )
        full = await refer(loading, identity=IDENTITY, reference=judge.reference, chunks=arguments.chunks)
        print(f"whole: perplexity {full.perplexity:.2f}\n")
        print("| ranking | layout | experts kept | perplexity | of the whole's | KL | same top token |")
        print("|---|---|---|---|---|---|---|")
        for ranking in rankings(calibration, shape):
            for layout in LAYOUTS:
                for shares in ROOMS:
                    print(await _line(judge, shape, ranking, layout, shares), flush=True)
    return 0


def rankings(calibration: Calibration, shape: ExpertShape) -> Iterator[ExpertRanking]:
    """Each layer by its own list, as meshes do; one list for all layers; no ranking at all."""
    yield ExpertRanking.of(filled(calibration.ranking.by_layer, shape), "per layer")
    yield ExpertRanking.of(dict.fromkeys(shape.layers, _overall(calibration.reap)), "one for all layers")
    yield ExpertRanking.of(dict.fromkeys(shape.layers, tuple(range(shape.experts))), "sequential")


def _overall(reap: Mapping[int, Sequence[float]]) -> tuple[int, ...]:
    """By what an expert's number adds, as a mean of its shares of each layer."""
    shares = [[each / sum(sums) for each in sums] for sums in reap.values()]
    return best_first([sum(of_expert) for of_expert in zip(*shares, strict=True)])


async def _line(
    judge: Judge, shape: ExpertShape, ranking: ExpertRanking, layout: ExpertLayout, shares: Sequence[float]
) -> str:
    counts = {NodeId(f"{number:064x}"): round(share * shape.experts) for number, share in enumerate(shares)}
    kept = dealt(shape, ranking, counts, layout)
    measured = [(kept[node], await judge.quality(ranking, kept[node])) for node in counts]
    columns = (
        ranking.source,
        layout,
        " / ".join(str(cut.count) for cut, _ in measured),
        " / ".join(f"{quality.perplexity:.1f}" for _, quality in measured),
        " / ".join(f"{quality.ratio:.2f}" for _, quality in measured),
        " / ".join(f"{quality.kl:.2f}" for _, quality in measured),
        " / ".join(f"{quality.same_top:.2f}" for _, quality in measured),
    )
    return f"| {' | '.join(columns)} |"


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
