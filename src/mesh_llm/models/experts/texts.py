"""Text to measure models with: what lies on any machine with Python, in two halves that share no passage.

Chapters of the language reference (`pydoc_data`) and docstrings of the standard library, half and half; one
kind alone ranks experts worse than two. Which half a chapter or module belongs to, a hash of its name says,
so what a ranking was made of is never what its cuts are judged by. The same Python gives the same text.
"""

import ast
import hashlib
import sysconfig
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from enum import IntEnum
from importlib import import_module
from pathlib import Path
from typing import Self, cast

from mesh_llm.core.errors import RequestRefused

DOCSTRING_CHARACTERS_MIN = 300
"""Shorter ones are mostly one sentence."""

MODULE_BYTES_MAX = 4 * 2**20
"""The longest of the standard library has 250 KB."""

TEXT_BYTES_MAX = 64 * 2**20
"""Of a person's own file: far more than is ever measured with."""


@dataclass(frozen=True, slots=True)
class Documentation:
    """Of one Python."""

    chapters: Mapping[str, str]
    """Of the language reference, by their names."""
    library: Path
    """The folder of its standard library."""

    @classmethod
    def of_this_python(cls) -> Self:
        try:
            chapters = cast("dict[str, str]", import_module("pydoc_data.topics").topics)
        except ImportError:  # some distributions ship it apart
            chapters = {}
        return cls(chapters, Path(sysconfig.get_paths()["stdlib"]))


class Half(IntEnum):
    CALIBRATION = 0
    HELD_OUT = 1


def passages(
    half: Half, count: int, characters: int, documentation: Documentation | None = None
) -> list[str]:
    """`count` passages of so many characters, or as many as there are; None: of this Python. Raises
    RequestRefused where it came without its documentation."""
    source = documentation or Documentation.of_this_python()
    chapters = spread("\n\n".join(_ordered(source.chapters, half)), -(-count // 2), characters)
    modules = _joined(_docstrings(source.library, half), count * characters)
    both = chapters + spread(modules, count - len(chapters), characters)
    if not both:
        raise RequestRefused(
            "This Python came without its documentation, which experts are measured with: name a text of "
            "your own, or install all of Python's standard library."
        )
    return both


def passages_of_file(path: Path, count: int, characters: int) -> list[str]:
    """Of a person's own text. Raises RequestRefused where it cannot be read or is too short."""
    try:
        with path.open("rb") as file:
            text = file.read(TEXT_BYTES_MAX).decode("utf-8", "replace")
    except OSError as error:
        raise RequestRefused(f"{path} cannot be read ({error.strerror}): name a text file.") from error
    found = spread(text, count, characters)
    if not found:
        raise RequestRefused(f"{path} has less than {characters} characters: name a longer text.")
    return found


def spread(text: str, count: int, characters: int) -> list[str]:
    """Passages from all over the text; fewer than `count` where it is too short for them."""
    count = min(count, len(text) // characters)
    if count <= 0:
        return []
    step = len(text) // count
    return [text[number * step : number * step + characters] for number in range(count)]


def half_of(name: str) -> Half:
    return Half(_hash(name)[0] & 1)


def _hash(name: str) -> bytes:
    return hashlib.blake2b(name.encode(), digest_size=8).digest()


def _ordered(texts: Mapping[str, str], half: Half) -> list[str]:
    """In an order that has nothing to do with their names: neighbours are of different matters."""
    return [texts[name] for name in sorted(texts, key=_hash) if half_of(name) is half]


def _docstrings(library: Path, half: Half) -> Iterator[str]:
    modules = sorted(library.glob("*.py"), key=lambda path: _hash(path.name))
    for path in modules:
        if half_of(path.name) is half and path.stat().st_size <= MODULE_BYTES_MAX:
            yield from _docstrings_of(path)


def _docstrings_of(path: Path) -> Iterator[str]:
    try:
        tree = ast.parse(path.read_text("utf-8", "replace"))
    except (OSError, SyntaxError, ValueError):
        return
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            found = ast.get_docstring(node)
            if found and len(found) >= DOCSTRING_CHARACTERS_MIN:
                yield found


def _joined(texts: Iterable[str], characters: int) -> str:
    """No more of them than are needed: parsing all modules takes seconds."""
    found: list[str] = []
    length = 0
    for text in texts:
        found.append(text)
        length += len(text) + 2
        if length >= characters:
            break
    return "\n\n".join(found)
