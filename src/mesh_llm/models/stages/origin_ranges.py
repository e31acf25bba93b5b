"""Ranges of a model's files from where they were published, as another node says it: from our own hub only.

The hub is asked when the first range is, since as a rule members of the mesh have the bytes. Counterpart:
`hub_ranges.py`, which reads. An address that is not of this node's hub is never asked, whoever names it.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

from mesh_llm.core.errors import DownloadFailed, RequestRefused
from mesh_llm.models.hub import Hub
from mesh_llm.models.patience import Sleep
from mesh_llm.models.references import HubFile, parse_reference
from mesh_llm.models.stages.hub_ranges import HubRanges
from mesh_llm.models.web import Web


@dataclass(frozen=True, slots=True)
class OriginPart:
    """One file, as it must be."""

    url: str
    size: int
    """Bytes."""
    sha256: str = ""
    """Empty where it is not known."""


class OriginRanges:
    """`RangeSource`."""

    def __init__(
        self, parts: Sequence[OriginPart], web: Web, endpoint: str, sleep: Sleep = asyncio.sleep
    ) -> None:
        """`endpoint`: of this node's hub. Raises RequestRefused where an address is of no file there."""
        self._parts = tuple(parts)
        self._files = [_file_at(part.url, endpoint) for part in parts]
        self._web = web
        self._endpoint = endpoint
        self._sleep = sleep
        self._opening = asyncio.Lock()
        self._ranges: HubRanges | None = None

    def __repr__(self) -> str:
        return f"<OriginRanges {self._parts[0].url}>"

    async def read(self, part: int, offset: int, length: int) -> bytes:
        """Raises DownloadFailed; ValueError beyond the file."""
        async with self._opening:
            if self._ranges is None:
                self._ranges = await self._open()
        return await self._ranges.read(part, offset, length)

    async def _open(self) -> HubRanges:
        hub = Hub(self._web, self._endpoint)
        ranges = await HubRanges.open(self._web, hub, self._files, self._endpoint, self._sleep)
        for wanted, found in zip(self._parts, ranges.described, strict=True):
            is_other = wanted.sha256 and found.remote.sha256 not in (None, wanted.sha256)
            if found.size != wanted.size or is_other:
                raise DownloadFailed(
                    f"{wanted.url} is another file than the model's: start a node that has the whole model, "
                    "or fetch it here with `mesh-llm download`."
                )
        return ranges


def _file_at(url: str, endpoint: str) -> HubFile:
    meant = parse_reference(url, endpoint)
    if not isinstance(meant, HubFile):
        raise RequestRefused(f"{url} is no file of the hub at {endpoint}.")
    return meant
