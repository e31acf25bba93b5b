"""Where the bytes of a model are had that another node leads: this disk, members that hold it, its origin."""

import asyncio
import logging
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

from mesh_llm.core.errors import ModelDamaged, RequestRefused
from mesh_llm.mesh.service import Mesh
from mesh_llm.models.catalogue import load_catalogue
from mesh_llm.models.library import Library
from mesh_llm.models.places import ModelPlaces
from mesh_llm.models.records import Identity, Records
from mesh_llm.models.shelf import StoredModel
from mesh_llm.models.stages.manifests import Manifests
from mesh_llm.models.stages.origin_ranges import OriginPart, OriginRanges
from mesh_llm.models.stages.ranges import FileRanges, RangeSource
from mesh_llm.models.web import Web
from mesh_llm.splits.messages import Assign, Part, ids_of
from mesh_llm.splits.peer_ranges import PartFile, PeerRanges

logger = logging.getLogger(__name__)


class ModelBytes:
    def __init__(self, places: ModelPlaces, manifests: Manifests, mesh: Mesh) -> None:
        self._places = places
        self._records = Records(places.notes, places.store)
        self._manifests = manifests
        self._mesh = mesh

    @asynccontextmanager
    async def ranges(self, assign: Assign) -> AsyncGenerator[RangeSource]:
        files = await self._files_here(assign.parts)
        if files is not None:
            yield FileRanges(files)
            return
        parts = [PartFile(part.size, part.root) for part in assign.parts]
        async with (
            Web(self._places) as web,
            PeerRanges.open(
                assign.model,
                parts,
                lambda: ids_of(assign.holders),
                self._mesh.stream,
                self._mesh.is_member,
                self._origin(assign.parts, web),
            ) as ranges,
        ):
            yield ranges

    def _origin(self, parts: Sequence[Part], web: Web) -> RangeSource | None:
        """Where they were published, if that may be asked."""
        if self._places.offline or not all(part.origin for part in parts):
            return None
        try:
            wanted = [OriginPart(part.origin, part.size, part.sha256) for part in parts]
            return OriginRanges(wanted, web, self._places.endpoint)
        except RequestRefused as refusal:
            logger.info("its origin is not asked: %s", refusal)
            return None

    async def _files_here(self, parts: Sequence[Part]) -> Sequence[Path] | None:
        """The same model, where it lies whole on this disk, whatever it is called here."""
        library = Library(self._places, load_catalogue(self._places.own_catalogue))
        for stored in await asyncio.to_thread(library.models):
            if await self._is_it(stored, parts):
                return stored.files
        return None

    async def _is_it(self, stored: StoredModel, parts: Sequence[Part]) -> bool:
        if stored.missing or len(stored.files) != len(parts):
            return False
        try:
            pairs = [(file, Identity.of(file), part) for file, part in zip(stored.files, parts, strict=True)]
            if any(identity.bytes != part.size for _, identity, part in pairs):
                return False
            return all([await self._has(file, identity, part) for file, identity, part in pairs])
        except (OSError, ModelDamaged):
            return False

    async def _has(self, file: Path, identity: Identity, part: Part) -> bool:
        if part.root is None:
            record = self._records.read(file)
            return record is not None and (record.sha256, record.identity) == (part.sha256, identity)
        manifest, _ = await self._manifests.manifest_of(file)
        return manifest.root == part.root
