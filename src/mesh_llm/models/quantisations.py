"""Which file of a folder full of quantisations is meant. Decides by names alone.

Counterparts: `hub.py` and `library.py`, which list the files of a repository and of a disk.
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from mesh_llm.core.errors import ModelNotFound
from mesh_llm.models.names import words
from mesh_llm.models.references import SUFFIX, all_parts, model_stem

PREFERRED = "Q4_K_M"

ORDER = (
    PREFERRED,
    *("UD-Q4_K_XL", "Q4_K_L", "Q4_K_S", "IQ4_XS", "IQ4_NL", "MXFP4_MOE", "MXFP4", "Q4_0", "Q4_1"),
    *("Q5_K_M", "Q5_K_S", "UD-Q5_K_XL", "Q5_0", "Q5_1", "Q6_K", "UD-Q6_K_XL", "Q8_0", "UD-Q8_K_XL"),
    *("Q3_K_L", "Q3_K_M", "UD-Q3_K_XL", "Q3_K_S", "BF16", "F16", "F32", "Q2_K"),
)
"""What to take when nobody says: about four bits first, then better ones, then what barely speaks."""

PROJECTOR_ORDER = ("F16", "BF16", "Q8_0", "F32")
"""Projectors are small: half precision costs little, and f16 runs on every device."""

_LABEL = re.compile(
    r"(?<![A-Za-z0-9])(?P<label>(?:UD-)?(?:I?Q\d(?:_[A-Z0-9]+)*|TQ\d_\d|BF16|F16|F32|MXFP4(?:_MOE)?))(?![A-Za-z0-9])",
    re.IGNORECASE,
)
_GENERIC_WORDS = {"mmproj", "model", "projector"}


@dataclass(frozen=True, slots=True)
class FileSet:
    """One model of a repository: its parts in order, the first alone where it is not split."""

    parts: tuple[str, ...]
    quantisation: str | None
    """As llama.cpp writes it (`Q4_K_M`), read from the file's name."""

    @property
    def base(self) -> str:
        """The name without the quantisation: equal for the same model in other precision."""
        return _LABEL.sub("", model_stem(self.parts[0])).strip("-._ ").lower()


def is_projector(path: str) -> bool:
    """Whether this is the part of a vision model that turns images into tokens (`mmproj-F16.gguf`)."""
    return path.lower().endswith(SUFFIX) and "mmproj" in _file_name(path).lower()


def is_model(path: str) -> bool:
    name = _file_name(path).lower()
    return name.endswith(SUFFIX) and "mmproj" not in name and "imatrix" not in name


def quantisation_of(path: str) -> str | None:
    labels = [found["label"] for found in _LABEL.finditer(model_stem(path))]
    return labels[-1].upper() if labels else None


def file_sets(paths: Iterable[str]) -> tuple[FileSet, ...]:
    """The whole models among `paths`; a split one of which a part is missing is left out."""
    here = set(paths)
    found: dict[tuple[str, ...], FileSet] = {}
    for path in sorted(here):
        parts = all_parts(path)
        if is_model(path) and here.issuperset(parts):
            found[parts] = FileSet(parts, quantisation_of(path))
    return tuple(found.values())


def choose(sets: Sequence[FileSet], wanted: str | None, place: str) -> FileSet:
    """The set in quantisation `wanted`, or without a wish the first of ORDER.

    Raises ModelNotFound, with what there is, where `wanted` is absent or several models share the place.
    """
    if not sets:
        raise ModelNotFound(
            f"{place} holds no GGUF model: give a repository that does (they often end in -GGUF)."
        )
    if wanted is not None:
        fitting = [each for each in sets if (each.quantisation or "").upper() == wanted.upper()]
        if not fitting:
            raise ModelNotFound(f"{place} has no {wanted}; there is: {_labels(sets)}.")
    else:
        best = min(_rank(each) for each in sets)
        fitting = [each for each in sets if _rank(each) == best]
    if len({each.base for each in fitting}) > 1:
        files = ", ".join(each.parts[0] for each in fitting[:8])
        raise ModelNotFound(f"{place} holds several models: {files}. Name one: org/repo/file.gguf.")
    return min(fitting, key=lambda each: (len(each.parts), len(each.parts[0]), each.parts[0]))


def not_the_preferred(chosen: FileSet, sets: Sequence[FileSet], place: str) -> str | None:
    """What to tell somebody who named no quantisation and gets another than the usual one."""
    if chosen.quantisation == PREFERRED or len(sets) == 1:
        return None
    return f"{place} has no {PREFERRED}: taking {chosen.quantisation}. There is: {_labels(sets)}."


def projector_for(model: str, projectors: Iterable[str], *, one_model_here: bool) -> str | None:
    """The projector that belongs to `model`, by name.

    A projector named after nothing (`mmproj-F16.gguf`) belongs to the model only where all files of its
    folder are of one model, as in a repository; one that carries a model's name must carry this one's.
    """
    own = words(model_stem(model))
    fitting = [path for path in projectors if _belongs(path, own, one_model_here)]
    return min(fitting, key=_projector_rank, default=None)


def _belongs(projector: str, model: tuple[str, ...], one_model_here: bool) -> bool:
    name = _LABEL.sub("", model_stem(projector))
    named = tuple(word for word in words(name) if word not in _GENERIC_WORDS)
    if not named:
        return one_model_here
    return any(model[start : start + len(named)] == named for start in range(len(model) - len(named) + 1))


def _projector_rank(path: str) -> tuple[int, int, str]:
    label = quantisation_of(path)
    rank = PROJECTOR_ORDER.index(label) if label in PROJECTOR_ORDER else len(PROJECTOR_ORDER)
    return rank, len(path), path


def _rank(each: FileSet) -> int:
    return ORDER.index(each.quantisation) if each.quantisation in ORDER else len(ORDER)


def _labels(sets: Sequence[FileSet]) -> str:
    return ", ".join(sorted({each.quantisation or each.parts[0] for each in sets}))


def _file_name(path: str) -> str:
    return path.rpartition("/")[2]
