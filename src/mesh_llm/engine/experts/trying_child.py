"""Loads a cut and computes with it: `python -m mesh_llm.engine.experts.trying_child`.

Counterpart: `trying.py`. llama.cpp aborts at some files that it cannot compute, so this process may
end at any call.
"""

import sys

import numpy as np

from mesh_llm.core.errors import EngineFailed, MeshError
from mesh_llm.engine.experts.chunks import load
from mesh_llm.engine.experts.settings import TryingSettings, fields_of
from mesh_llm.engine.llama.context import Context, ContextSettings, rows_of
from mesh_llm.engine.llama.model import Model
from mesh_llm.engine.parent import UNUSABLE, Parent, first_line
from mesh_llm.runtime import lifeline

ROWS = 8
"""Enough that rows are computed together; then one alone, as while it answers."""


def main() -> int:
    settings = TryingSettings(**fields_of(first_line()))
    lifeline.hold()
    parent = Parent()
    try:
        model = load(settings.loading, parent)
        check(model, settings)
    except MeshError as error:
        print(error, file=sys.stderr)  # noqa: T201
        return UNUSABLE
    parent.tell("ready", {"bytes": model.bytes})
    return 0


def check(model: Model, settings: TryingSettings) -> None:
    """Raises EngineFailed where nothing, or no number, comes out."""
    context = Context(
        model,
        ContextSettings(
            settings.batch, settings.batch, sequences=1, threads=settings.loading.threads, outputs=1
        ),
    )
    for rows in (range(ROWS), range(ROWS, ROWS + 1)):
        outputs = np.zeros(len(rows), np.int8)
        outputs[-1] = 1
        tokens = [row % model.tokens for row in rows]
        context.decode(rows_of(rows), rows_of([0] * len(rows)), tokens=rows_of(tokens), outputs=outputs)
        if not np.isfinite(context.logits(len(rows) - 1)).all():
            raise EngineFailed("what it computes are no numbers")


if __name__ == "__main__":
    sys.exit(main())
