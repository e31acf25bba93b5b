"""Which experts of a mixture are best, had where it costs least: this disk, a member, a measurement here.

Of several nodes that would measure it one does, and the others wait for its ranking (`measuring.py`).
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from mesh_llm.core.errors import Unavailable
from mesh_llm.core.experts import ExpertRanking
from mesh_llm.core.ids import NodeId, short
from mesh_llm.core.offers import MEASURES_NOW, WOULD_MEASURE, CutOffer
from mesh_llm.engine.experts.calibrating import calibrate
from mesh_llm.mesh.service import Mesh
from mesh_llm.mesh.transport import PeerError, Refused, Stream, Unreachable
from mesh_llm.models.experts.cut_store import CutStore
from mesh_llm.models.experts.ranking_files import kept_ranking
from mesh_llm.node.measuring import Tell, had_elsewhere
from mesh_llm.node.mixtures import MixtureSource
from mesh_llm.node.own_models import OwnModels
from mesh_llm.splits.ranking_exchange import RankingServer, ranking_from

logger = logging.getLogger(__name__)

ASKED_MAX = 8
"""Members, one after the other: who has one mostly gives it at once."""

RETRY_AFTER_S = 10


class ExpertRankings:
    def __init__(
        self, store: CutStore, mesh: Mesh, models: OwnModels, environment: Mapping[str, str]
    ) -> None:
        self._store = store
        self._mesh = mesh
        self._models = models
        self._environment = environment
        self._known: dict[str, ExpertRanking] = {}
        """By identity."""
        self._server = RankingServer(self._known.get)

    def path(self, identity: str) -> Path:
        """Where it is kept on this disk."""
        return self._store.ranking_path(identity)

    async def of(self, source: MixtureSource, tell: Tell) -> ExpertRanking:
        """Raises Unavailable where nobody has one and it cannot be measured here; EngineFailed, DiskFull."""
        ranking = await self._kept_or(partial(self._made, source, tell), source)
        logger.info("the experts of %s: ranking %s (%s)", source.name, ranking.digest[:8], ranking.source)
        self._known[source.identity] = ranking
        return ranking

    async def answer(self, stream: Stream) -> None:
        """A member's wish. Raises Unreachable, PeerError."""
        await self._server.answer(stream)

    def offers(self, identity: str) -> Sequence[tuple[NodeId, CutOffer]]:
        """What other members say of cuts of the same files."""
        return [
            (neighbour.advert.node, served.offer.cut)
            for neighbour in self._mesh.neighbours()
            for served in neighbour.advert.models
            if served.offer.cut is not None and served.offer.cut.model == identity
        ]

    async def _kept_or(
        self, make: Callable[[], Awaitable[ExpertRanking]], source: MixtureSource
    ) -> ExpertRanking:
        path, identity = self.path(source.identity), source.identity
        refused = partial(_refused, source.name)
        return await kept_ranking(path, identity, source.mixture.shape, make, refused)

    async def _made(self, source: MixtureSource, tell: Tell) -> ExpertRanking:
        can_measure = bool(source.files)
        said = WOULD_MEASURE if can_measure else ""
        tell("asking other nodes for a ranking of its experts", said)
        told = await had_elsewhere(
            self._mesh.me if can_measure else None,
            partial(self._measuring, source.identity),
            partial(self._asked, source, set[tuple[NodeId, str]]()),
            lambda node: tell(f"waiting for {self._mesh.name_of(node)} to rank its experts", said),
            asyncio.sleep,
        )
        if told is not None:
            return told
        if not can_measure:
            raise Unavailable(
                f"No node has a ranking of the experts of {source.name}, and its file is not here to measure"
                f" one: run `mesh-llm download {source.name}` on a node that has the disk for it.",
                retry_after_s=RETRY_AFTER_S,
            )
        return await self._measured_alone(source, tell)

    def _measuring(self, identity: str) -> Mapping[NodeId, str]:
        """Who lacks one too."""
        return {node: cut.measuring for node, cut in self.offers(identity) if not cut.ranking}

    async def _asked(self, source: MixtureSource, in_vain: set[tuple[NodeId, str]]) -> ExpertRanking | None:
        """Of those who say that they have one; nobody is asked for the same twice."""
        having = [(node, cut.ranking) for node, cut in self.offers(source.identity) if cut.ranking]
        for told in [each for each in having if each not in in_vain][:ASKED_MAX]:
            ranking = await self._ask(told[0], source)
            if ranking is not None:
                return ranking
            in_vain.add(told)
        return None

    async def _ask(self, node: NodeId, source: MixtureSource) -> ExpertRanking | None:
        """None where it has none, or none that checks: another is asked."""
        try:
            ranking = await ranking_from(node, self._mesh.stream, source.identity, source.mixture.shape)
        except (Unreachable, Refused, PeerError) as error:
            logger.info("no ranking of %s from %s: %s", source.name, short(node), error)
            return None
        return replace(ranking, source=f"from node {short(node)}")

    async def _measured_alone(self, source: MixtureSource, tell: Tell) -> ExpertRanking:
        """Another process may have measured it on this disk meanwhile."""

        def waiting() -> None:
            tell("waiting for another process on this machine, which measures it", MEASURES_NOW)

        async with self._store.measuring(source.identity, waiting):
            return await self._kept_or(partial(self._measured, source, tell), source)

    async def _measured(self, source: MixtureSource, tell: Tell) -> ExpertRanking:
        def on_share(word: str, share: float) -> None:
            tell(f"ranking its experts: {word} {share:.0%}", MEASURES_NOW)

        tell("ranking its experts", MEASURES_NOW)
        logger.info("%s: its experts are ranked here, by what they add to some text", source.name)
        return await calibrate(
            source.files[0],
            source.mixture.shape,
            threads=self._models.machine.cores,
            # What this node has no room for whole stays on disk while it is measured.
            is_larger_than_memory=True,
            environment=self._environment,
            on_share=on_share,
        )


def _refused(name: str, why: str) -> None:
    logger.warning("%s: %s", name, why)
