"""The models on this disk: what they are called, which one is meant, and whether they are sound.

Counterparts: `shelf.py` finds the files, `verification.py` checks them, `obtain.py` fetches what is not here.
A start passes through here, so nothing here knows of the network, and finding costs a listing and no more.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from mesh_llm.core.errors import ModelDamaged, ModelNotFound, RequestRefused
from mesh_llm.core.model import ModelFacts
from mesh_llm.core.progress import Report, ignore
from mesh_llm.models import names
from mesh_llm.models.catalogue import Catalogue, Entry, IndexSource
from mesh_llm.models.gguf.facts import read_file_facts
from mesh_llm.models.places import ModelPlaces
from mesh_llm.models.quantisations import choose
from mesh_llm.models.records import Records
from mesh_llm.models.references import SUFFIX, HubFile, HubRepository
from mesh_llm.models.shelf import StoredModel, cache_models, model_at, store_models
from mesh_llm.models.threads import run_to_end
from mesh_llm.models.verification import known_file, verify


@dataclass(frozen=True, slots=True)
class LocalModel:
    """A whole model on disk, read and found sound."""

    name: str
    files: tuple[Path, ...]
    """Its parts in order; the engine is given the first."""
    bytes: int
    facts: ModelFacts
    projector: Path | None
    """What turns images into tokens, if it has eyes."""
    aliases: tuple[str, ...]
    """Other names that requests may use."""
    sha256: tuple[str | None, ...]
    """Of each file, where it is known."""


def distinct(models: Sequence[LocalModel]) -> list[LocalModel]:
    """Each model once, in order. Raises RequestRefused where two others share a name: requests go by it."""
    named: dict[str, LocalModel] = {}
    for model in models:
        known = named.setdefault(model.name.lower(), model)
        if known.files != model.files:
            raise RequestRefused(
                f"Two models are called {model.name}: {known.files[0]} and {model.files[0]}. Rename one file."
            )
    return list(named.values())


@dataclass(frozen=True, slots=True)
class Library:
    places: ModelPlaces
    catalogue: Catalogue

    def models(self) -> tuple[StoredModel, ...]:
        """All models of the store and the hub's cache, each under a name of its own; incomplete ones too."""
        named: dict[str, StoredModel] = {}
        for model in self._all():
            name = model.name if model.name.lower() not in named else _full_name(model)
            named.setdefault(name.lower(), replace(model, name=name))
        return tuple(sorted(named.values(), key=lambda model: model.name.lower()))

    def find(self, wanted: str) -> StoredModel | None:
        """The whole model of exactly this name, alias or file name, in any case; the store goes first."""
        asked = wanted.lower().removesuffix(SUFFIX)

        def called_so(model: StoredModel) -> bool:
            return asked in {name.lower().removesuffix(SUFFIX) for name in (model.name, *model.aliases)}

        return self._first_whole(called_so)

    def find_like(self, wanted: str) -> StoredModel | None:
        """The whole model whose name fits, if only one does. Raises ModelNotFound where several do."""
        whole = [model for model in self.models() if not model.missing]
        fitting = names.fitting(wanted, [model.name for model in whole])
        if len(fitting) > 1:
            raise names.several_fit(wanted, fitting, [model.name for model in whole])
        return next((model for model in whole if model.name in fitting), None)

    def of_hub_file(self, file: HubFile) -> StoredModel | None:
        """The whole model that `file` is, or is a part of."""

        def is_it(model: StoredModel) -> bool:
            origin = model.origin
            return (
                origin is not None
                and _same_repository(origin, file.repository, file.revision)
                and file.path in model.file_set.parts
            )

        return self._first_whole(is_it)

    def of_repository(self, wanted: HubRepository) -> StoredModel | None:
        """The whole model of a repository, in the quantisation wanted or, without a wish, the usual one."""
        here = [
            model
            for model in self._all()
            if model.origin is not None
            and not model.missing
            and _same_repository(model.origin, wanted.repository, wanted.revision)
        ]
        if not here:
            return None
        try:
            chosen = choose([model.file_set for model in here], wanted.quantisation, wanted.repository)
        except ModelNotFound:
            return None
        return next(model for model in here if model.file_set == chosen)

    def at(self, path: Path) -> StoredModel:
        """The model that lies at `path`, or whose part does. Raises ModelNotFound and ModelDamaged."""
        if path.is_dir():
            held = ", ".join(model.name for model in store_models(path)[:8]) or "no .gguf file"
            raise ModelNotFound(f"{path} is a folder ({held}): give the path of a .gguf file.")
        try:
            return model_at(path)
        except OSError as error:
            raise ModelNotFound(f"There is no model at {path} ({error.strerror}): check the path.") from error

    async def open(self, stored: StoredModel, report: Report = ignore) -> LocalModel:
        """Reads its header and makes sure that its files are what they were. Raises ModelDamaged."""
        if stored.missing:
            raise ModelDamaged(
                f"{stored.name} lacks {len(stored.missing)} of its parts in {stored.files[0].parent}: "
                f"{', '.join(stored.missing[:8])}. Download them, or delete the others."
            )
        facts = await run_to_end(read_file_facts, stored.files)
        records = Records(self.places.notes, self.places.store)
        told = self._told(stored)
        known = [known_file(file, records, told) for file in stored.files]
        eyes = None if stored.projector is None else known_file(stored.projector, records, None)
        await verify(stored.name, [each for each in (*known, eyes) if each is not None], records, report)
        return LocalModel(
            name=stored.name,
            files=stored.files,
            bytes=stored.bytes,
            facts=facts,
            projector=stored.projector,
            aliases=stored.aliases,
            sha256=tuple(each and each.sha256 for each in known),
        )

    def _told(self, stored: StoredModel) -> str | None:
        """The catalogue's checksum, where this can only be the catalogue's file: same name, same size."""
        entry = self.catalogue.exact(stored.name)
        source = entry.source if entry is not None else None
        return source.sha256 if isinstance(source, IndexSource) and source.bytes == stored.bytes else None

    def _first_whole(self, fits: Callable[[StoredModel], bool]) -> StoredModel | None:
        """The cache is looked through only where the store has none."""
        for shelf in (self._stored, self._cached):
            for model in shelf():
                if not model.missing and fits(model):
                    return model
        return None

    def _all(self) -> Sequence[StoredModel]:
        return [*self._stored(), *self._cached()]

    def _stored(self) -> Sequence[StoredModel]:
        return [self._named(model) for model in store_models(self.places.store)]

    def _cached(self) -> Sequence[StoredModel]:
        return [self._named(model) for model in cache_models(self.places.hub_cache)]

    def _named(self, model: StoredModel) -> StoredModel:
        """Called as the catalogue calls it, if it knows it; the name of its file stays an alias."""
        entry = self._entry(model)
        name = model.name if entry is None else entry.name
        others = {model.name, _full_name(model)} - {name}
        return replace(model, name=name, aliases=tuple(sorted(others)))

    def _entry(self, model: StoredModel) -> Entry | None:
        if model.origin is None:
            return self.catalogue.exact(model.name)
        return self.catalogue.of_hub_file(model.origin.repository, model.origin.path)


def _full_name(model: StoredModel) -> str:
    """With the repository, as a reference that finds it again."""
    if model.origin is None:
        return model.name
    return f"{model.origin.repository}/{model.origin.path}"


def _same_repository(origin: HubFile, repository: str, revision: str) -> bool:
    return origin.repository.lower() == repository.lower() and origin.revision == revision
