"""Who could hold stages, and how far they are from each other: asked of every candidate at once.

The leader's side of a survey; `surveying.py` is the candidate's. What comes back is what `planner.splitting`
looks at.
"""

import asyncio
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import combinations
from math import inf

from mesh_llm.core.ids import NodeId
from mesh_llm.mesh.transport import Kind, PeerError, Refused, Unreachable
from mesh_llm.planner.split_view import Pair, SplitView, StageHost, pair
from mesh_llm.runtime.clock import Clock
from mesh_llm.splits import messages
from mesh_llm.splits.borrowed_stage import OpenStream
from mesh_llm.splits.messages import NODES_MAX, Survey, Surveyed

logger = logging.getLogger(__name__)

SURVEY_SECONDS_MAX = 30.0
"""A candidate may have to dial the others first: 10 s each at most, all at once."""


@dataclass(frozen=True, slots=True)
class _Report:
    host: StageHost
    round_trips: Mapping[Pair, float]


class Scouting:
    def __init__(
        self,
        me: NodeId,
        open_stream: OpenStream,
        round_trip_s: Callable[[NodeId], float | None],
        clock: Clock,
    ) -> None:
        """`round_trip_s`: as the open connection to a node has measured it."""
        self._me = me
        self._open_stream = open_stream
        self._round_trip_s = round_trip_s
        self._clock = clock

    async def look(self, me: StageHost, candidates: Mapping[NodeId, str]) -> SplitView:
        """`candidates` with their names for people. Who does not answer is no candidate."""
        asked = sorted(candidates)[: NODES_MAX - 1]
        async with asyncio.TaskGroup() as tasks:
            running = [tasks.create_task(self._ask(node, candidates[node], asked)) for node in asked]
        reports = [report for task in running if (report := task.result()) is not None]
        hosts = tuple(report.host for report in reports)
        return SplitView(me, hosts, self._agreed(hosts, reports))

    def _agreed(self, hosts: tuple[StageHost, ...], reports: list[_Report]) -> dict[Pair, float]:
        """Each pair as the one that measured the longer way; where neither could, there is none."""
        nodes = sorted((self._me, *(host.node for host in hosts)))
        agreed: dict[Pair, float] = {}
        for between in combinations(nodes, 2):
            measured = [r.round_trips[between] for r in reports if between in r.round_trips]
            finite = [seconds for seconds in measured if seconds != inf]
            agreed[between] = max(finite, default=inf)
        return agreed

    async def _ask(self, node: NodeId, name: str, all_asked: list[NodeId]) -> _Report | None:
        others = [other for other in all_asked if other != node]
        began = self._clock.monotonic()
        try:
            async with asyncio.timeout(SURVEY_SECONDS_MAX), self._open_stream(node, Kind.STAGE) as stream:
                began = self._clock.monotonic()
                await stream.send(messages.encode(Survey(nodes=messages.bytes_of(others))))
                await stream.finish()
                answer = messages.decode_from_holder(await stream.receive() or b"")
        except (Unreachable, Refused, PeerError, TimeoutError) as error:
            logger.info("%s is no candidate for a stage: %s", name, error or "it does not answer")
            return None
        if not isinstance(answer, Surveyed):
            logger.info("%s is no candidate for a stage: it did not answer a survey", name)
            return None
        here = self._round_trip_s(node)
        # Where no measurement is at hand, the exchange itself is one: never shorter than the round trip.
        way = self._clock.monotonic() - began if here is None else here
        return _report(self._me, node, name, way, answer)


def _report(me: NodeId, node: NodeId, name: str, way: float, answer: Surveyed) -> _Report:
    round_trips = {pair(me, node): way}
    for told in answer.round_trips:
        (other,) = messages.ids_of((told.node,))
        round_trips[pair(node, other)] = inf if told.seconds is None else told.seconds
    host = StageHost(node, answer.memory_bytes_free, answer.weights_bytes_per_second, name)
    return _Report(host, round_trips)
