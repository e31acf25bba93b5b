"""The models that have a name here, and where each comes from. Data in `catalogue.toml`, the reader here.

Counterpart: `obtain.py`, which fetches what an entry names. This module knows nothing of what is on disk.
A file of the same form in the home folder adds entries and replaces those of the same name; it is written by
people, so what is wrong in it is said with its place.
"""

import re
import tomllib
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from mesh_llm.core.errors import RequestRefused
from mesh_llm.core.quantities import GB
from mesh_llm.models import names
from mesh_llm.models.references import (
    SUFFIX,
    HubFile,
    model_stem,
    parse_reference,
)

BUILT_IN = Path(__file__).with_name("catalogue.toml")
DEFAULT_MODEL = "SmolLM2-135M-Instruct"
"""Served when nothing else is asked for: it comes with the package index, no model hub is needed."""

CATALOGUE_BYTES_MAX = 1_000_000
"""The one that ships has 10 kB."""

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
_EXACT_REQUIREMENT = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*==[A-Za-z0-9][A-Za-z0-9.+!_-]*")
_AFTER_STEM = re.compile(r"\.gguf.*", re.IGNORECASE)
_SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class Experts:
    """Of a mixture of experts; `least` is the fewest that are worth having on one node."""

    count: int
    used: int
    least: int


@dataclass(frozen=True, slots=True)
class WheelPiece:
    """A member of a wheel that is the model's file, or one stretch of it."""

    requirement: str
    """`name==version`, exact."""
    member: str


@dataclass(frozen=True, slots=True)
class IndexSource:
    """A model carried by the Python package index."""

    pieces: tuple[WheelPiece, ...]
    bytes: int
    sha256: str
    """Of the joined pieces, in lower-case hex."""


@dataclass(frozen=True, slots=True)
class HubSource:
    file: HubFile
    projector: str | None
    """Path in the same repository; None lets the hub's listing decide."""


@dataclass(frozen=True, slots=True)
class Entry:
    name: str
    source: HubSource | IndexSource
    bytes: int
    """All files together; about, unless the source is an index."""
    draft: str | None = None
    experts: Experts | None = None

    @property
    def stem(self) -> str:
        """What its file is called where it comes from."""
        if isinstance(self.source, HubSource):
            return model_stem(self.source.file.path)
        member = self.source.pieces[0].member.rpartition("/")[2]
        return _AFTER_STEM.sub("", member)


@dataclass(frozen=True, slots=True)
class Catalogue:
    entries: tuple[Entry, ...]

    def find(self, wanted: str, others: Collection[str] = ()) -> Entry:
        """The entry meant by `wanted`: its full name in any case, its file's name, or words of it.

        `others` are names that exist elsewhere, to be offered too where nothing fits. Raises ModelNotFound,
        with the candidates where several fit and the nearest names where none does.
        """
        entry = self.exact(wanted)
        if entry is not None:
            return entry
        own = [entry.name for entry in self.entries]
        found = names.fitting(wanted, own)
        if len(found) == 1:
            return self.require(found[0])
        raise names.several_fit(wanted, found, own) if found else names.none_fits(wanted, [*own, *others])

    def exact(self, wanted: str) -> Entry | None:
        """By full name, or the name of the file; case and a `.gguf` at the end do not count."""
        asked = wanted.lower().removesuffix(SUFFIX)
        for entry in self.entries:
            if entry.name.lower() == asked:
                return entry
        return next((entry for entry in self.entries if entry.stem.lower() == asked), None)

    def require(self, name: str) -> Entry:
        return next(entry for entry in self.entries if entry.name == name)

    def of_hub_file(self, repository: str, path: str) -> Entry | None:
        """The entry that a file of the hub belongs to: same repository, same name but for parts and folder.

        Not the same path: publishers split and move their files.
        """
        stem = model_stem(path).lower()
        for entry in self.entries:
            file = entry.source.file if isinstance(entry.source, HubSource) else None
            if (
                file is not None
                and file.repository.lower() == repository.lower()
                and entry.stem.lower() == stem
            ):
                return entry
        return None


def load_catalogue(own: Path | None = None) -> Catalogue:
    """The entries that ship and those of the file `own`, if there is one. Raises RequestRefused."""
    entries = {entry.name.lower(): entry for entry in _read(BUILT_IN)}
    if own is not None and own.is_file():
        entries |= {entry.name.lower(): entry for entry in _read(own)}
    return Catalogue(tuple(entries.values()))


def _read(path: Path) -> Iterable[Entry]:
    try:
        if path.stat().st_size > CATALOGUE_BYTES_MAX:
            raise RequestRefused(
                f"{path} is over {CATALOGUE_BYTES_MAX} bytes: it is no catalogue, move it away."
            )
        table = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise RequestRefused(f"{path} cannot be read as a catalogue: {error}. Mend or remove it.") from error
    models = table.get("model", [])
    if not isinstance(models, list):
        raise RequestRefused(f"{path}: each entry begins with [[model]].")
    return [
        _entry(_Fields(path, number, fields)) for number, fields in enumerate(cast("list[object]", models), 1)
    ]


class _Fields:
    """One [[model]] table, read key by key; what is wrong is reported with its place."""

    def __init__(self, path: Path, number: int, table: object) -> None:
        self._place = f"{path}, model {number}"
        if not isinstance(table, Mapping):
            raise self.wrong("it is not a table")
        self._table = cast("Mapping[str, object]", table)
        self._place += f" ({self._table.get('name', 'without a name')})"

    def wrong(self, what: str) -> RequestRefused:
        return RequestRefused(f"{self._place}: {what}. The keys are explained in {BUILT_IN}.")

    def has(self, key: str) -> bool:
        return key in self._table

    def text(self, key: str, form: re.Pattern[str] | None = None) -> str:
        value = self._table.get(key)
        if not isinstance(value, str) or (form is not None and not form.fullmatch(value)):
            raise self.wrong(f"{key} = {value!r} is missing or malformed")
        return value

    def optional_text(self, key: str) -> str | None:
        return self.text(key) if self.has(key) else None

    def count(self, key: str) -> int:
        value = self._table.get(key)
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise self.wrong(f"{key} = {value!r} must be a whole number above 0")
        return value

    def gigabytes(self, key: str) -> int:
        value = self._table.get(key)
        if not isinstance(value, int | float) or isinstance(value, bool) or not 0 < value < 1e6:
            raise self.wrong(f"{key} = {value!r} must be a number above 0")
        return round(value * GB)

    def tables(self, key: str) -> list["_Fields"]:
        value = self._table.get(key)
        listed = cast("list[object]", value) if isinstance(value, list) else [value]
        if not listed:
            raise self.wrong(f"{key} is empty")
        return [_Fields(Path(f"{self._place}, {key}"), number, item) for number, item in enumerate(listed, 1)]


def _entry(fields: _Fields) -> Entry:
    name = fields.text("name", _NAME)
    if name.lower().endswith(SUFFIX):
        raise fields.wrong("a name does not end in .gguf")
    source = _index_source(fields) if fields.has("wheels") else _hub_source(fields)
    return Entry(
        name=name,
        source=source,
        bytes=source.bytes if isinstance(source, IndexSource) else fields.gigabytes("size_gb"),
        draft=fields.optional_text("draft"),
        experts=_experts(fields.tables("experts")[0]) if fields.has("experts") else None,
    )


def _index_source(fields: _Fields) -> IndexSource:
    pieces = tuple(
        WheelPiece(piece.text("requirement", _EXACT_REQUIREMENT), piece.text("member"))
        for piece in fields.tables("wheels")
    )
    return IndexSource(pieces, fields.count("bytes"), fields.text("sha256", _SHA256))


def _hub_source(fields: _Fields) -> HubSource:
    text = f"{fields.text('repository')}/{fields.text('file')}"
    if fields.has("revision"):
        text += f"@{fields.text('revision')}"
    projector = fields.optional_text("projector")
    try:
        file = parse_reference(text)
        if projector is not None:
            parse_reference(f"{fields.text('repository')}/{projector}")
    except RequestRefused as error:
        raise fields.wrong(str(error)) from error
    if not isinstance(file, HubFile):
        raise fields.wrong(f"{text} is no file on a hub")
    return HubSource(file, projector)


def _experts(fields: _Fields) -> Experts:
    return Experts(fields.count("count"), fields.count("used"), fields.count("least"))
