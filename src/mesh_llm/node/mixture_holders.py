"""Members that may hold all of a mixture that lies on no disk here, so that not everybody asks the hub.

Whoever has something else under that name refuses by its identity (`splits/byte_serving.py`); whoever comes
later is asked then (`splits/peer_ranges.py`).
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence

from mesh_llm.core.ids import NodeId
from mesh_llm.mesh.gossip.advert import Advert
from mesh_llm.mesh.service import Mesh
from mesh_llm.node.mixtures import MixtureSource

LOOK_SECONDS = 0.1

LOOKS_MAX = 30
"""3 s, in which a node that has just joined hears as a rule what the others have."""


class MixtureHolders:
    def __init__(self, source: MixtureSource, mesh: Mesh) -> None:
        self._source = source
        self._mesh = mesh

    def now(self) -> Sequence[NodeId]:
        """Those first who serve all of it, or wanted to; who serves a cut need not have the rest."""
        adverts = [neighbour.advert for neighbour in self._mesh.neighbours()]
        whole = [advert.node for advert in adverts if self._may_be_whole(advert)]
        return [*whole, *(each.node for each in adverts if each.node not in whole and self._has_cut(each))]

    async def wait(self, sleep: Callable[[float], Awaitable[object]] = asyncio.sleep) -> None:
        """For the first of them, while there are members that have not said what they are; not for long."""
        for _ in range(LOOKS_MAX):
            told = {neighbour.advert.node for neighbour in self._mesh.neighbours()}
            if self.now() or told.issuperset(self._mesh.names()):
                return
            await sleep(LOOK_SECONDS)

    def _may_be_whole(self, advert: Advert) -> bool:
        names = {self._source.name, *self._source.aliases}
        return any(claim.model == self._source.identity for claim in advert.claims) or any(
            served.offer.cut is None and not names.isdisjoint((served.offer.name, *served.offer.aliases))
            for served in advert.models
        )

    def _has_cut(self, advert: Advert) -> bool:
        cuts = [served.offer.cut for served in advert.models if served.offer.cut is not None]
        return any(cut.model == self._source.identity for cut in cuts)
