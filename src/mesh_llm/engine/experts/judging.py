"""What a cut costs against its full model, as its node asks for it. Counterpart: `judging_child.py`.

The full model reads the held-out text once; what it said stays on disk for all cuts of it.
"""

import logging
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mesh_llm.core.errors import EngineFailed, ModelDamaged
from mesh_llm.core.experts import Quality
from mesh_llm.engine.experts.asking import OnShare, answer_of, nobody
from mesh_llm.engine.experts.reference import Reference, read_reference
from mesh_llm.engine.experts.settings import JudgingSettings, Loading
from mesh_llm.models.disk import make_folder
from mesh_llm.models.threads import run_to_end

logger = logging.getLogger(__name__)

CHUNKS = 4
"""Of 512 tokens, of which 255 are scored: 1020. A ratio of 1.3 then has a standard error of about 0.05
(docs/benchmarks.md): enough to tell a fair cut from a poor one; more takes long where the whole comes from
disk."""

JUDGE_S_MAX = 3600.0


async def judge(
    full: Loading,
    cut: Loading,
    *,
    identity: str,
    reference: Path,
    chunks: int = CHUNKS,
    environment: Mapping[str, str] = os.environ,
    seconds_max: float = JUDGE_S_MAX,
    on_share: OnShare = nobody,
) -> Quality:
    """`identity`: of the full model's files. `reference`: where what it said is kept, and made where it is
    not there or of no use. Raises EngineFailed, DiskFull."""
    known = await refer(
        full,
        identity=identity,
        reference=reference,
        chunks=chunks,
        environment=environment,
        seconds_max=seconds_max,
        on_share=on_share,
    )
    settings = JudgingSettings(cut, str(reference), identity, is_full=False, chunks=chunks)
    sums = await _asked(settings, environment, seconds_max, on_share)
    tokens = int(sums["tokens"])
    return _quality(sums, tokens, known.perplexity)


async def refer(
    full: Loading,
    *,
    identity: str,
    reference: Path,
    chunks: int = CHUNKS,
    environment: Mapping[str, str] = os.environ,
    seconds_max: float = JUDGE_S_MAX,
    on_share: OnShare = nobody,
) -> Reference:
    """What the full model says: from disk, or asked now. Raises EngineFailed, DiskFull."""
    found = await run_to_end(_usable, reference, identity)
    if found is not None:
        return found
    make_folder(reference.parent)
    settings = JudgingSettings(full, str(reference), identity, is_full=True, chunks=chunks)
    await _asked(settings, environment, seconds_max, on_share)
    made = await run_to_end(_usable, reference, identity)
    if made is None:
        raise EngineFailed(f"{reference} was written and cannot be read: check the disk")
    return made


def _usable(path: Path, identity: str) -> Reference | None:
    try:
        return read_reference(path, identity)
    except ModelDamaged as error:  # asked again, which overwrites it
        logger.warning("%s", error)
        return None


async def _asked(
    settings: JudgingSettings, environment: Mapping[str, str], seconds_max: float, on_share: OnShare
) -> dict[str, Any]:
    name = f"reading of {Path(settings.loading.model_path).name}"
    module = "mesh_llm.engine.experts.judging_child"
    return await answer_of(name, module, settings, environment, seconds_max, on_share)


def _quality(sums: Mapping[str, Any], tokens: int, full_perplexity: float) -> Quality:
    return Quality(
        perplexity=math.exp(sums["surprise"] / tokens),
        full_perplexity=full_perplexity,
        kl=sums["divergence"] / tokens,
        same_top=sums["same_top"] / tokens,
        tokens=tokens,
    )
