"""English that comes with every CPython: the language's reference and the docstrings of its library.

Half of the topics and of the modules, by a hash of their names, is for making and calibrating; the other half
is held out, for judging. The same on all machines with the same Python.
"""

import ast
import enum
import hashlib
import pydoc_data.topics
import sysconfig
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
