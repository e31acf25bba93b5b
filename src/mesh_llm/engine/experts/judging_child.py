"""Reads held-out text with a model: `python -m mesh_llm.engine.experts.judging_child`.

Counterpart: `judging.py`. The full model leaves a reference (`reference.py`) on disk; a cut is
compared with it. It says `ready {...}` with the sums over all tokens.
"""

import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from mesh_llm.core.errors import EngineFailed, MeshError
from mesh_llm.engine.experts.chunks import PASSAGE_CHARACTERS, chunks_of, compute, load, opened
from mesh_llm.engine.experts.comparison import Comparison, Row, log_probabilities
from mesh_llm.engine.experts.reference import (
    Reference,
    RowsWriter,
    bounded,
    first_scored,
    read_reference,
    rows_of,
    rows_path,
    write_note,
)
from mesh_llm.engine.experts.settings import CHUNK_TOKENS, JudgingSettings, fields_of
from mesh_llm.engine.llama.model import Model
from mesh_llm.engine.parent import UNUSABLE, Parent, first_line
from mesh_llm.models.disk import check_space
from mesh_llm.models.experts.texts import Half, passages
from mesh_llm.models.part_file import part_path
from mesh_llm.runtime import lifeline


def main() -> int:
    settings = JudgingSettings(**fields_of(first_line()))
    lifeline.hold()
    parent = Parent()
    try:
        model = load(settings.loading, parent)
        judged = (refer if settings.is_full else compare)(model, settings, parent)
    except (MeshError, OSError) as error:
        print(error, file=sys.stderr)  # noqa: T201
        return UNUSABLE
    parent.tell(
        "ready",
        {
            "tokens": judged.tokens,
            "surprise": judged.surprise,
            "divergence": judged.divergence,
            "same_top": judged.same_top,
        },
    )
    return 0


def refer(model: Model, settings: JudgingSettings, parent: Parent) -> Comparison:
    """Writes the reference. Raises EngineFailed, DiskFull, OSError."""
    texts = passages(Half.HELD_OUT, settings.chunks, PASSAGE_CHARACTERS)
    chunks = bounded(chunks_of(model, texts), model.tokens)
    if not chunks:
        raise EngineFailed(f"a vocabulary of {model.tokens} is too large to be compared")
    path = Path(settings.reference_path)
    path.unlink(missing_ok=True)
    check_space(path.parent, sum(map(len, chunks)) * model.tokens, "What the full model says")
    sums = Comparison()
    unfinished = part_path(rows_path(path))
    with unfinished.open("wb") as file:
        rows = RowsWriter(file)
        for row, target in _said(model, chunks, settings, parent):
            rows.add(row)
            sums.add(row, target)
    unfinished.replace(rows_path(path))
    reference = Reference(tuple(map(tuple, chunks)), model.tokens, sums.perplexity)
    write_note(path, settings.identity, reference, rows.checksum)
    return sums


def compare(model: Model, settings: JudgingSettings, parent: Parent) -> Comparison:
    """Raises EngineFailed, ModelDamaged, OSError."""
    path = Path(settings.reference_path)
    reference = read_reference(path, settings.identity)
    if reference is None:
        raise EngineFailed(f"there is no {path}: ask the full model first")
    if reference.vocabulary != model.tokens:
        raise EngineFailed(
            f"its vocabulary has {model.tokens} tokens, the full model's {reference.vocabulary}: "
            "it is no cut of it"
        )
    sums = Comparison()
    said = _said(model, reference.chunks, settings, parent)
    for (row, target), full in zip(said, rows_of(path, reference), strict=True):
        sums.add(row, target, full)
    return sums


def _said(
    model: Model, chunks: Sequence[Sequence[int]], settings: JudgingSettings, parent: Parent
) -> Iterator[tuple[Row, int]]:
    """Log-probabilities of each scored position, and the token that follows there."""
    context = opened(model, settings.loading.threads, CHUNK_TOKENS // 2 + 1)
    for number, chunk in enumerate(chunks, 1):
        first = first_scored(len(chunk))
        compute(context, chunk, first)
        for position in range(first, len(chunk) - 1):
            yield log_probabilities(context.logits(position)), chunk[position + 1]
        parent.tell("computing", {"fraction": number / len(chunks)})


if __name__ == "__main__":
    sys.exit(main())
