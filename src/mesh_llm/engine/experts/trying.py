"""Whether a cut can be served, tried before it is. Counterpart: `trying_child.py`."""

import os
from collections.abc import Mapping
from pathlib import Path

from mesh_llm.core.errors import EngineFailed
from mesh_llm.engine.experts.asking import answer_of, nobody
from mesh_llm.engine.experts.settings import Loading, TryingSettings

TRY_S_MAX = 300.0
"""Its weights are mapped and few of them are read."""


async def try_out(
    path: Path,
    *,
    threads: int = 1,
    environment: Mapping[str, str] = os.environ,
    seconds_max: float = TRY_S_MAX,
) -> None:
    """Loads the file and computes a few rows. Raises EngineFailed with the reason, also where the engine
    aborts, which it does where a graph becomes larger than it thinks possible."""
    settings = TryingSettings(Loading(str(path), threads, repacks=False))
    try:
        await answer_of(
            f"trial of {path.name}",
            "mesh_llm.engine.experts.trying_child",
            settings,
            environment,
            seconds_max,
            nobody,
        )
    except EngineFailed as error:
        raise EngineFailed(f"{path.name} cannot be served: {error}") from error
