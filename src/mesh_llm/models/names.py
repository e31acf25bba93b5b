"""Which of several names a person meant: whole words, in order, and never a guess between two.

Counterparts: `catalogue.py` and `library.py`, which own the names. `Qwen3-8B` means `Qwen3-8B-Q4_K_M` and not
`Qwen3-80B`; `32b` means five models, so it means none of them.
"""

import re
from collections.abc import Collection, Iterable

from mesh_llm.core.errors import ModelNotFound

NAMES_SHOWN_MAX = 8
"""What fits on a terminal without scrolling the message away."""

_BETWEEN_WORDS = re.compile(r"[^0-9a-z.]+|\.(?![0-9])|(?<![0-9])\.")
"""The full stop of a version (`Qwen2.5`) belongs to its word, any other one ends it."""


def words(name: str) -> tuple[str, ...]:
    return tuple(word for word in _BETWEEN_WORDS.split(name.lower()) if word)


def fitting(wanted: str, names: Iterable[str]) -> tuple[str, ...]:
    """The names that `wanted` may mean, in their own order; the first rule that fits any of them decides.

    Rules: the same words; its words in one run; its words in their order with others between.
    """
    asked = words(wanted)
    if not asked:
        return ()
    split = [(name, words(name)) for name in names]
    for rule in (_same, _in_a_run, _in_order):
        found = tuple(name for name, has in split if rule(asked, has))
        if found:
            return found
    return ()


def several_fit(wanted: str, found: Collection[str], names: Collection[str]) -> ModelNotFound:
    """`found` first, then what merely holds the same letters: who wrote `qwen` may have meant `Qwen3-8B`."""
    candidates = list(dict.fromkeys([*found, *_holding(wanted, names)]))
    shown, more = candidates[:NAMES_SHOWN_MAX], len(candidates) - NAMES_SHOWN_MAX
    listed = ", ".join(shown) + (f" and {more} more" if more > 0 else "")
    return ModelNotFound(f"{wanted!r} fits several models: {listed}. Give the full name of one.")


def none_fits(wanted: str, names: Collection[str]) -> ModelNotFound:
    close = _nearest(wanted, names)
    hint = f"Nearest: {', '.join(close)}. " if close else ""
    return ModelNotFound(
        f"There is no model {wanted!r} on this disk or in the catalogue. {hint}"
        "Give a name that `mesh-llm models` or `mesh-llm download` lists, a path to a .gguf file, or a "
        "Hugging Face repository (org/repo:Q4_K_M)."
    )


def _nearest(wanted: str, names: Iterable[str]) -> list[str]:
    from difflib import get_close_matches  # a start that finds its model never needs it

    by_lower = {name.lower(): name for name in names}
    close = get_close_matches(wanted.lower(), by_lower, n=NAMES_SHOWN_MAX, cutoff=0.4)
    return list(dict.fromkeys([*_holding(wanted, by_lower.values()), *(by_lower[name] for name in close)]))[
        :NAMES_SHOWN_MAX
    ]


def _holding(wanted: str, names: Iterable[str]) -> list[str]:
    return [name for name in names if wanted.lower() in name.lower()]


def _same(asked: tuple[str, ...], has: tuple[str, ...]) -> bool:
    return asked == has


def _in_a_run(asked: tuple[str, ...], has: tuple[str, ...]) -> bool:
    return any(has[start : start + len(asked)] == asked for start in range(len(has) - len(asked) + 1))


def _in_order(asked: tuple[str, ...], has: tuple[str, ...]) -> bool:
    remaining = iter(has)
    return all(word in remaining for word in asked)
