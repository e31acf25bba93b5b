"""What cuts were measured to cost, kept beside them. Counterpart: `engine/experts/judging.py` measures.

One small JSON file a cut, and as with rankings: what does not check is refused with the reason.
"""

import json
import math
from pathlib import Path
from typing import cast

from mesh_llm.core.errors import ModelDamaged
from mesh_llm.core.experts import Quality
from mesh_llm.models.disk import cannot_write
from mesh_llm.models.records import replace_text

VERSION = 1

QUALITY_BYTES_MAX = 65_536
"""One has about 300."""

KL_MIN = -1.0
"""It may come out below nothing by what the full model's probabilities lost when they were kept."""

_NUMBERS = ("perplexity", "full_perplexity", "kl", "same_top")


def write_quality(path: Path, identity: str, kept_digest: str, quality: Quality) -> None:
    """`identity`: of the full model's files; `kept_digest`: of the cut (`Kept.digest`). Raises DiskFull."""
    fields = {
        "version": VERSION,
        "model": identity,
        "kept": kept_digest,
        **{name: getattr(quality, name) for name in _NUMBERS},
        "tokens": quality.tokens,
    }
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        replace_text(path, json.dumps(fields))
    except OSError as error:
        raise cannot_write(path, error) from error


def read_quality(path: Path, identity: str, kept_digest: str) -> Quality | None:
    """None where there is no file. Raises ModelDamaged where it is damaged, of another version or cut."""
    try:
        with path.open("rb") as file:
            text = file.read(QUALITY_BYTES_MAX)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise _unusable(f"{path} cannot be read: {error.strerror}") from error
    return _decoded(text, identity, kept_digest)


def _decoded(text: bytes, identity: str, kept_digest: str) -> Quality:
    try:
        found = cast("object", json.loads(text))
    except (ValueError, RecursionError):
        raise _unusable("it is cut off, or no JSON") from None
    fields = cast("dict[str, object]", found) if isinstance(found, dict) else {}
    if fields.get("version") != VERSION:
        raise _unusable(f"it has version {fields.get('version')!r:.20}, known is {VERSION}")
    if (fields.get("model"), fields.get("kept")) != (identity, kept_digest):
        raise _unusable("it is of another cut")
    return _quality(fields)


def _quality(fields: dict[str, object]) -> Quality:
    numbers = [_number(fields.get(name)) for name in _NUMBERS]
    tokens = fields.get("tokens")
    if not isinstance(tokens, int) or isinstance(tokens, bool) or tokens <= 0 or not _are_possible(*numbers):
        raise _unusable("its numbers are impossible")
    return Quality(*numbers, tokens=tokens)


def _number(value: object) -> float:
    if isinstance(value, int) and not isinstance(value, bool):
        return float(value) if abs(value) < 2**63 else math.nan
    return value if isinstance(value, float) else math.nan


def _are_possible(perplexity: float, full_perplexity: float, kl: float, same_top: float) -> bool:
    return all(map(math.isfinite, (perplexity, full_perplexity, kl))) and (
        perplexity >= 1 and full_perplexity >= 1 and kl >= KL_MIN and 0 <= same_top <= 1
    )


def _unusable(why: str) -> ModelDamaged:
    return ModelDamaged(f"What this cut costs is not known: {why}. It must be judged again.")
