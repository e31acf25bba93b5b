"""English that comes with every CPython: the language's reference and the docstrings of its library.

Half of the topics and of the modules, by a hash of their names, is for making and calibrating; the other half
is held out, for judging. The same on all machines with the same Python.
"""

import ast
import enum
import functools
import hashlib
import pydoc_data.topics
import re
import sysconfig
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

DOCSTRING_LETTERS_MIN = 300
"""Shorter ones are hardly text."""


class Half(enum.IntEnum):
    CALIBRATION = 0
    HELD_OUT = 1


def reference(half: Half) -> str:
    return _joined(pydoc_data.topics.topics.items(), half)


def docstrings(half: Half) -> str:
    library = Path(sysconfig.get_paths()["stdlib"])
    return _joined(((path.name, _documentation(path)) for path in library.glob("*.py")), half)


def chunks(tokens: list[int], count: int, size: int) -> list[list[int]]:
    """`count` runs of `size` tokens, evenly spread."""
    step = len(tokens) // count
    if step < size:
        raise ValueError(f"{len(tokens)} tokens are too few for {count} runs of {size}")
    return [tokens[at * step : at * step + size] for at in range(count)]


def _joined(named: Iterable[tuple[str, str]], half: Half) -> str:
    digests = [(hashlib.sha256(name.encode()).digest(), text) for name, text in named if text]
    return "\n\n".join(text for digest, text in sorted(digests) if digest[0] % 2 == half)


def _documentation(path: Path) -> str:
    documented = (ast.Module, ast.ClassDef, ast.FunctionDef)
    nodes = ast.walk(ast.parse(path.read_text("utf-8", "ignore")))
    texts = [ast.get_docstring(node) or "" for node in nodes if isinstance(node, documented)]
    return "\n\n".join(text for text in texts if len(text) > DOCSTRING_LETTERS_MIN)


WORD = re.compile(r"[a-z]+")
USES_MIN = 2
"""Of a word in the reference: those used once are mostly names."""

ENGLISH_SHARE_MIN = 0.7
"""Of an answer's words that the reference has, too. Of random tokens it has some, of single letters none."""

DIFFERENT_WORDS_MIN = 8
"""Whoever repeats one word says nothing."""


def reads_as_english(text: str) -> bool:
    """Not whether it makes sense."""
    words = WORD.findall(text.lower())
    known = [word for word in words if word in vocabulary()]
    return len(set(known)) >= DIFFERENT_WORDS_MIN and len(known) >= ENGLISH_SHARE_MIN * len(words)


@functools.cache
def vocabulary() -> frozenset[str]:
    """Of the half that mixtures are made of and calibrated with."""
    used = Counter(WORD.findall(reference(Half.CALIBRATION).lower()))
    return frozenset(
        word for word, uses in used.items() if uses >= USES_MIN and (len(word) > 1 or word in ("a", "i"))
    )
