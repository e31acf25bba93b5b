"""A model that is at the hub and not on this disk: what its headers say, read without fetching the rest.

For models that no disk here need hold whole, since they run over several nodes. Counterpart: `obtain.py`,
which fetches.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

from mesh_llm.core.model import ModelFacts
from mesh_llm.models.catalogue import load_catalogue
from mesh_llm.models.fetching import files_of_model
from mesh_llm.models.gguf.contents import Header
from mesh_llm.models.gguf.model_facts import facts_of
from mesh_llm.models.hub import Hub
from mesh_llm.models.library import Library
from mesh_llm.models.obtain import wanted_from_hub
from mesh_llm.models.patience import Sleep
from mesh_llm.models.places import ModelPlaces
from mesh_llm.models.references import model_stem
from mesh_llm.models.stages.hub_ranges import HubPart, HubRanges
from mesh_llm.models.stages.ranges import read_remote_headers
from mesh_llm.models.web import Web


@dataclass(frozen=True, slots=True)
class HubModel:
    name: str
    """As it would be called on disk."""
    aliases: tuple[str, ...]
    headers: Sequence[Header]
    """Of its files, in order."""
    facts: ModelFacts
    parts: tuple[HubPart, ...]
    """The SHA-256 of each is known."""
    ranges: HubRanges

    @property
    def bytes(self) -> int:
        return sum(part.size for part in self.parts)


async def look_at_hub(
    reference: str, places: ModelPlaces, web: Web, sleep: Sleep = asyncio.sleep
) -> HubModel | None:
    """None where the model lies on this disk, comes from elsewhere, or where the server does not say what its
    files hold: then it is to be fetched. `web` is needed as long as the model's ranges are.

    Raises as `obtain` does.
    """
    library = Library(places, load_catalogue(places.own_catalogue))
    request = wanted_from_hub(reference, library)
    if request is None:
        return None
    hub = Hub(web, places.endpoint)
    files = await files_of_model(request, hub, sleep)
    ranges = await HubRanges.open(web, hub, files, places.endpoint, sleep)
    if not all(part.remote.sha256 for part in ranges.described):
        return None
    headers = await read_remote_headers(ranges, ranges.parts)
    entry = library.catalogue.of_hub_file(files[0].repository, files[0].path)
    stem = model_stem(files[0].path)
    name = stem if entry is None else entry.name
    aliases = tuple(sorted({stem, f"{files[0].repository}/{files[0].path}"} - {name}))
    return HubModel(name, aliases, headers, facts_of(headers), ranges.described, ranges)
