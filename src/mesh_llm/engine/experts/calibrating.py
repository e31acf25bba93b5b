"""A model's experts ranked by what they add, as its node asks for it. Counterpart: `calibrating_child.py`.

Reads the whole model: what does not fit into memory comes from disk, once for each chunk of text.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from mesh_llm.core.errors import EngineFailed
from mesh_llm.core.experts import ExpertRanking, ExpertShape, filled
from mesh_llm.engine.experts.asking import OnShare, answer_of, nobody
from mesh_llm.engine.experts.saliency import best_first
from mesh_llm.engine.experts.settings import CHUNK_TOKENS, CalibratingSettings, Loading

TOKENS = 4096
"""2048 found the ranking that 8192 found on a mixture of 16; with 8 of 128 experts used, each sees 256."""

CALIBRATE_S_MAX = 3600.0
"""A model of 100 GB from a disk of 500 MB/s, eight times, takes half of it."""

MEASURED_HERE = "measured here"


@dataclass(frozen=True, slots=True)
class Calibration:
    """What was measured of one model."""

    ranking: ExpertRanking
    reap: Mapping[int, tuple[float, ...]]
    """Of each layer that ran and each expert, by its id: the sum of weight x norm of its output."""
    uses: Mapping[int, tuple[int, ...]]
    """How many tokens chose it."""
    tokens: int


async def calibrate(
    path: Path,
    shape: ExpertShape,
    *,
    threads: int,
    gpu_layers: int = 0,
    is_larger_than_memory: bool = False,
    tokens: int = TOKENS,
    text: Path | None = None,
    environment: Mapping[str, str] = os.environ,
    seconds_max: float = CALIBRATE_S_MAX,
    on_share: OnShare = nobody,
) -> ExpertRanking:
    """`path`: of the whole model; of a split one the first part. `text`: None takes what Python brings along.
    Raises EngineFailed, with the reason, also where this model's experts cannot be measured."""
    measured = await measure(
        path,
        shape,
        Loading(str(path), threads, gpu_layers, repacks=not is_larger_than_memory),
        tokens=tokens,
        text=text,
        environment=environment,
        seconds_max=seconds_max,
        on_share=on_share,
    )
    return measured.ranking


async def measure(
    path: Path,
    shape: ExpertShape,
    loading: Loading,
    *,
    tokens: int = TOKENS,
    text: Path | None = None,
    environment: Mapping[str, str] = os.environ,
    seconds_max: float = CALIBRATE_S_MAX,
    on_share: OnShare = nobody,
) -> Calibration:
    """As `calibrate`, with the numbers that the ranking was made of."""
    settings = CalibratingSettings(
        loading,
        shape.experts,
        shape.layers,
        max(1, tokens // CHUNK_TOKENS),
        str(text) if text is not None else None,
    )
    answer = await answer_of(
        f"ranking of the experts of {path.name}",
        "mesh_llm.engine.experts.calibrating_child",
        settings,
        environment,
        seconds_max,
        on_share,
    )
    reap = {int(layer): tuple(map(float, sums)) for layer, sums in answer["reap"].items()}
    uses = {int(layer): tuple(map(int, counts)) for layer, counts in answer["uses"].items()}
    lists = {layer: best_first(sums) for layer, sums in reap.items()}
    try:
        ranking = ExpertRanking.of(filled(lists, shape), MEASURED_HERE)
    except ValueError as error:
        raise EngineFailed(f"{path.name}: {error}") from error
    return Calibration(ranking, reap, uses, answer["tokens"])
