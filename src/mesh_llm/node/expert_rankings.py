"""Which experts of a mixture are best, had where it costs least: this disk, a member, a measurement here."""

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from mesh_llm.core.errors import Unavailable
from mesh_llm.core.experts import ExpertRanking
from mesh_llm.core.ids import NodeId, short
from mesh_llm.engine.experts.calibrating import calibrate
from mesh_llm.mesh.service import Mesh
from mesh_llm.mesh.transport import Kind, PeerError, Refused, Stream, Unreachable
from mesh_llm.models.experts.cut_store import CutStore
from mesh_llm.models.experts.ranking_files import kept_ranking
from mesh_llm.node.mixtures import MixtureSource
from mesh_llm.node.own_models import OwnModels
from mesh_llm.splits.ranking_exchange import answer_ranking, ask_ranking

logger = logging.getLogger(__name__)

ASK_SECONDS_MAX = 30.0
"""One member; a ranking has some megabytes at most."""

ASKED_MAX = 8
"""Members, one after the other: who has one mostly gives it at once."""

RETRY_AFTER_S = 10

RANKING_FILE = "ranking.json"

Tell = Callable[[str], None]
"""What is being done, for people."""


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

    def path(self, identity: str) -> Path:
        """Where it is kept on this disk."""
        return self._store.folder_of("cut", identity) / RANKING_FILE

    async def of(self, source: MixtureSource, tell: Tell) -> ExpertRanking:
        """Raises Unavailable where nobody has one and it cannot be measured here; EngineFailed, DiskFull."""
        shape = source.mixture.shape
        ranking = await kept_ranking(
            self.path(source.identity),
            source.identity,
            shape,
            partial(self._made, source, tell),
            partial(_refused, source.name),
        )
        logger.info("the experts of %s: ranking %s (%s)", source.name, ranking.digest[:8], ranking.source)
        self._known[source.identity] = ranking
        return ranking

    async def answer(self, stream: Stream) -> None:
        """A member's wish. Raises Unreachable, PeerError."""
        await answer_ranking(stream, self._known.get)

    async def _made(self, source: MixtureSource, tell: Tell) -> ExpertRanking:
        tell("asking other nodes for a ranking of its experts")
        for node in self.holders(source.identity)[:ASKED_MAX]:
            ranking = await self._ask(node, source)
            if ranking is not None:
                return ranking
        if not source.files:
            raise Unavailable(
                f"No node has a ranking of the experts of {source.name}, and its file is not here to measure"
                f" one: run `mesh-llm download {source.name}` on a node that has the disk for it.",
                retry_after_s=RETRY_AFTER_S,
            )
        return await self._measured(source, tell)

    def holders(self, identity: str) -> Sequence[NodeId]:
        """Members that serve cuts of the same files; those with a ranking first."""
        cuts = [
            (served.offer.cut.ranking == "", neighbour.advert.node)
            for neighbour in self._mesh.neighbours()
            for served in neighbour.advert.models
            if served.offer.cut is not None and served.offer.cut.model == identity
        ]
        return [node for _, node in sorted(cuts)]

    async def _ask(self, node: NodeId, source: MixtureSource) -> ExpertRanking | None:
        """None where it has none, or none that checks: another is asked."""
        try:
            async with asyncio.timeout(ASK_SECONDS_MAX), self._mesh.stream(node, Kind.RANKING) as stream:
                ranking = await ask_ranking(stream, source.identity, source.mixture.shape)
        except (Unreachable, Refused, PeerError, TimeoutError) as error:
            logger.info("no ranking of %s from %s: %s", source.name, short(node), error)
            return None
        return replace(ranking, source=f"from node {short(node)}")

    async def _measured(self, source: MixtureSource, tell: Tell) -> ExpertRanking:
        def on_share(word: str, share: float) -> None:
            tell(f"ranking its experts: {word} {share:.0%}")

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
