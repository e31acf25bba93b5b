"""Which models lie in a folder, by the names of their files alone: nothing is opened.

Counterpart: `library.py`, which gives them their names and opens them. Two layouts are known: ours
(`file.gguf`, or `org/repo/path/file.gguf` as fetched from the hub) and the cache of Hugging Face's own tools
(`models--org--repo/snapshots/COMMIT/path/file.gguf`, links to `blobs/SHA256`). A `.part` is never a model.
"""

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from mesh_llm.models.quantisations import FileSet, is_model, is_projector, projector_for, quantisation_of
from mesh_llm.models.references import DEFAULT_REVISION, SUFFIX, HubFile, all_parts, model_stem

FILES_MAX = 100_000
"""Looked at below one folder; a store of a thousand split models has a tenth of it."""

_CACHED = "models--"


@dataclass(frozen=True, slots=True)
class StoredModel:
    """One model on disk."""

    name: str
    files: tuple[Path, ...]
    """Its parts in order; those that are here."""
    missing: tuple[str, ...]
    """Names of the parts that are not."""
    bytes: int
    projector: Path | None
    origin: HubFile | None
    """The file of the hub that its place says it is; of a split one, the first part."""
    aliases: tuple[str, ...] = ()

    @property
    def file_set(self) -> FileSet:
        assert self.origin is not None
        return FileSet(all_parts(self.origin.path), quantisation_of(self.origin.path))


def store_path(store: Path, file: HubFile) -> Path:
    """Where a file of the hub is kept. Other revisions than the usual one have a folder of their own."""
    suffix = "" if file.revision == DEFAULT_REVISION else "@" + file.revision.replace("/", ",")
    return store.joinpath(*f"{file.repository}{suffix}/{file.path}".split("/"))


def store_models(store: Path) -> list[StoredModel]:
    """All models below `store`, incomplete ones too."""
    scopes: dict[str, list[str]] = {}
    for path in _files_below(store):
        folders = path.split("/")[:-1]
        scope = "/".join(folders[:2]) if len(folders) >= 2 else "/".join(folders)
        scopes.setdefault(scope, []).append(path)
    found: list[StoredModel] = []
    for scope, paths in sorted(scopes.items()):
        origin = _store_origin(scope)
        found += _models(store, paths, origin, len(scope) + 1 if scope else 0, named_only=not scope)
    return found


def cache_models(cache: Path) -> list[StoredModel]:
    """All models in the hub's cache; of several snapshots with the same file, the current one's."""
    found: list[StoredModel] = []
    for folder in _folders(cache):
        if not folder.name.startswith(_CACHED):
            continue
        repository = folder.name[len(_CACHED) :].replace("--", "/", 1)
        seen: set[str] = set()
        for snapshot, revision in _snapshots(folder):
            origin = HubFile(repository, "", revision)
            for model in _models(snapshot, list(_files_below(snapshot)), origin, 0, named_only=False):
                assert model.origin is not None
                if model.origin.path not in seen:
                    seen.add(model.origin.path)
                    found.append(model)
    return found


def model_at(path: Path) -> StoredModel:
    """The model that `path` is, or is a part of, with its neighbours. Raises OSError."""
    size, folder = path.stat().st_size, path.parent
    names = [entry.name for entry in os.scandir(folder) if entry.name.lower().endswith(SUFFIX)]
    wanted = all_parts(path.name)
    for model in _models(folder, {*names, path.name}, None, 0, named_only=False):
        if wanted[0] in {file.name for file in model.files} | set(model.missing):
            return model
    return StoredModel(model_stem(path.name), (path,), (), size, None, None)


def _models(
    root: Path, paths: Iterable[str], origin: HubFile | None, strip: int, *, named_only: bool
) -> Iterator[StoredModel]:
    """`paths` below `root` are of one repository or folder; `strip` characters of them are its own name."""
    here = {path: root.joinpath(*path.split("/")) for path in paths}
    projectors = [path for path in here if is_projector(path)]
    sets = {all_parts(path): quantisation_of(path) for path in sorted(here) if is_model(path)}
    bases = {FileSet(parts, quantisation).base for parts, quantisation in sets.items()}
    for parts in sets:
        files = tuple(here[part] for part in parts if part in here)
        projector = projector_for(parts[0], projectors, one_model_here=len(bases) == 1 and not named_only)
        yield StoredModel(
            name=model_stem(parts[0]),
            files=files,
            missing=tuple(part.rpartition("/")[2] for part in parts if part not in here),
            bytes=sum(_size(file) for file in files),
            projector=None if projector is None else here[projector],
            origin=origin and HubFile(origin.repository, parts[0][strip:], origin.revision),
        )


def _store_origin(scope: str) -> HubFile | None:
    organisation, slash, repository = scope.partition("/")
    if not slash:
        return None
    repository, at, revision = repository.partition("@")
    return HubFile(f"{organisation}/{repository}", "", revision.replace(",", "/") if at else DEFAULT_REVISION)


def _snapshots(folder: Path) -> list[tuple[Path, str]]:
    """With their revisions, the current one first, then the youngest."""
    try:
        current = (folder / "refs" / DEFAULT_REVISION).read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError):
        current = ""
    snapshots = sorted(_folders(folder / "snapshots"), key=lambda each: each.stat().st_mtime, reverse=True)
    snapshots.sort(key=lambda each: each.name != current)
    return [(each, DEFAULT_REVISION if each.name == current else each.name) for each in snapshots]


def _size(file: Path) -> int:
    """0 where somebody deletes it while we look."""
    try:
        return file.stat().st_size
    except OSError:
        return 0


def _folders(folder: Path) -> list[Path]:
    try:
        return sorted(Path(entry.path) for entry in os.scandir(folder) if entry.is_dir())
    except OSError:
        return []


def _files_below(root: Path) -> Iterator[str]:
    """Paths of GGUF files, relative and with `/`; hidden folders and dangling links are passed over."""
    seen = 0
    for folder, folders, names in os.walk(root):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        seen += len(names)
        if seen > FILES_MAX:
            return
        for name in names:
            path = Path(folder, name)
            if name.lower().endswith(SUFFIX) and not name.startswith(".") and path.is_file():
                yield path.relative_to(root).as_posix()
