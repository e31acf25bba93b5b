"""From a file or repository of the hub to files on this disk: which ones, and where they go.

Counterpart: `obtain.py`, which imports this only when something must be fetched: the HTTP library costs a
start more than finding a model does. `hub.py` answers the questions, `downloads.py` carries the bytes.
"""

import asyncio
import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial

from mesh_llm.core.errors import DownloadFailed
from mesh_llm.core.progress import Report
from mesh_llm.models.disk import FreeBytes, free_bytes
from mesh_llm.models.downloads import Downloads
from mesh_llm.models.hub import Hub
from mesh_llm.models.patience import Sleep, patiently
from mesh_llm.models.places import ModelPlaces
from mesh_llm.models.quantisations import (
    choose,
    file_sets,
    is_projector,
    not_the_preferred,
    projector_for,
    quantisation_of,
)
from mesh_llm.models.references import HubFile, HubRepository, all_parts, model_stem
from mesh_llm.models.shelf import store_path
from mesh_llm.models.transfer import Wanted
from mesh_llm.models.web import Web

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class HubRequest:
    """What to fetch, and what to call it meanwhile."""

    meant: HubFile | HubRepository
    subject: str | None = None
    projector: str | None = None
    """Path in the repository, where it is known."""
    may_have_moved: bool = False
    """Another file of the same repository and quantisation will do: what a catalogue says grows old."""


async def fetch_from_hub(
    request: HubRequest,
    places: ModelPlaces,
    report: Report,
    sleep: Sleep = asyncio.sleep,
    free: FreeBytes = free_bytes,
) -> HubFile:
    """The model's (first) file, all now in the store. Raises ModelNotFound, DownloadFailed and DiskFull."""
    async with Web(places) as web:
        hub = Hub(web, places.endpoint)
        listing = await _listing(hub, request.meant, sleep)
        model = _model(request, listing)
        files = [replace(model, path=path) for path in all_parts(model.path)]
        projector = _projector(request, model, listing)
        if projector is not None:
            files.append(replace(model, path=projector))
        wanted = [await _wanted(hub, places, file, sleep) for file in files]
        downloads = Downloads(places, web, hub, report, sleep, free)
        await downloads.fetch(request.subject or model_stem(model.path), wanted)
        return files[0]


async def files_of_model(request: HubRequest, hub: Hub, sleep: Sleep = asyncio.sleep) -> tuple[HubFile, ...]:
    """Of the model alone, in order. Raises ModelNotFound, DownloadFailed."""
    model = _model(request, await _listing(hub, request.meant, sleep))
    return tuple(replace(model, path=path) for path in all_parts(model.path))


async def _wanted(hub: Hub, places: ModelPlaces, file: HubFile, sleep: Sleep) -> Wanted:
    remote = await patiently(partial(hub.describe, file), places.endpoint, sleep)
    return Wanted(file, remote, store_path(places.store, file))


async def _listing(hub: Hub, meant: HubFile | HubRepository, sleep: Sleep) -> Sequence[str]:
    ask = partial(hub.files, meant.repository, meant.revision)
    try:
        return await patiently(ask, meant.repository, sleep)
    except DownloadFailed:
        if isinstance(meant, HubRepository):
            raise
        # A mirror without listings can still have the file; if it has not, that is said there.
        return ()


def _model(request: HubRequest, listing: Sequence[str]) -> HubFile:
    meant = request.meant
    if isinstance(meant, HubFile):
        if not request.may_have_moved or not listing or set(listing).issuperset(all_parts(meant.path)):
            return meant
        meant = HubRepository(meant.repository, quantisation_of(meant.path), meant.revision)
    sets = file_sets(listing)
    chosen = choose(sets, meant.quantisation, meant.repository)
    if meant.quantisation is None:
        notice = not_the_preferred(chosen, sets, meant.repository)
        if notice is not None:
            _log.warning("%s", notice)
    return HubFile(meant.repository, chosen.parts[0], meant.revision)


def _projector(request: HubRequest, model: HubFile, listing: Sequence[str]) -> str | None:
    if request.projector is not None and (not listing or request.projector in listing):
        return request.projector
    bases = {each.base for each in file_sets(listing)}
    projectors = [path for path in listing if is_projector(path)]
    return projector_for(model.path, projectors, one_model_here=len(bases) == 1)
