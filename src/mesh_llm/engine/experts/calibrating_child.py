"""Measures experts: `python -m mesh_llm.engine.experts.calibrating_child`. Counterpart: `calibrating.py`.

It reads one line of settings, computes chunks of text, and says `ready {...}` with what each expert of each
layer added. The final norm and the output head are left out.
"""

import sys
from collections.abc import Sequence
from pathlib import Path

from mesh_llm.core.errors import MeshError
from mesh_llm.engine.experts.chunks import PASSAGE_CHARACTERS, chunks_of, compute, load, opened
from mesh_llm.engine.experts.saliency import Saliency
from mesh_llm.engine.experts.settings import CHUNK_TOKENS, CalibratingSettings, fields_of
from mesh_llm.engine.llama.model import Model
from mesh_llm.engine.llama.watching import Watching
from mesh_llm.engine.parent import UNUSABLE, Parent, first_line
from mesh_llm.models.experts.texts import Half, passages, passages_of_file
from mesh_llm.runtime import lifeline


def main() -> int:
    settings = CalibratingSettings(**fields_of(first_line()))
    lifeline.hold()
    parent = Parent()
    try:
        model = load(settings.loading, parent)
        chunks = chunks_of(model, _passages(settings))
        measured = measure(model, chunks, settings, parent).measured()
    except MeshError as error:
        print(error, file=sys.stderr)  # noqa: T201
        return UNUSABLE
    parent.tell("ready", {**measured, "tokens": sum(map(len, chunks))})
    return 0


def measure(
    model: Model, chunks: Sequence[list[int]], settings: CalibratingSettings, parent: Parent
) -> Saliency:
    """Raises EngineFailed."""
    architecture = model.metadata("general.architecture") or ""
    saliency = Saliency(architecture, settings.layers, settings.experts)
    watching = Watching(model.library, saliency.is_wanted, saliency.see)
    # All rows are outputs: the last layer computes no others.
    context = opened(model, settings.loading.threads, CHUNK_TOKENS, watching)
    for number, chunk in enumerate(chunks, 1):
        saliency.begin(len(chunk))
        compute(context, chunk, first_output=0)
        saliency.check()
        parent.tell("computing", {"fraction": number / len(chunks)})
    return saliency


def _passages(settings: CalibratingSettings) -> list[str]:
    if settings.text_path is not None:
        return passages_of_file(Path(settings.text_path), settings.chunks, PASSAGE_CHARACTERS)
    return passages(Half.CALIBRATION, settings.chunks, PASSAGE_CHARACTERS)


if __name__ == "__main__":
    sys.exit(main())
