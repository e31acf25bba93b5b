"""Who could hold stages, and how far they are from each other: asked of every candidate at once.

`surveying.py` asks one; what comes together here is what `planner.splitting` looks at.
"""

import asyncio
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from math import inf

from mesh_llm.core.ids import NodeId
from mesh_llm.mesh.transport import PeerError, Refused, Unreachable
from mesh_llm.planner.split_view import Pair, SplitView, StageHost, pair
from mesh_llm.splits.messages import NODES_MAX, ids_of
from mesh_llm.splits.surveying import Surveyor

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _Report:
    host: StageHost
    round_trips: Mapping[Pair, float]


async def look_around(me: StageHost, candidates: Mapping[NodeId, str], surveyor: Surveyor) -> SplitView:
    """`candidates` with their names for people. Who does not answer is none."""
    asked = sorted(candidates)[: NODES_MAX - 1]
    async with asyncio.TaskGroup() as tasks:
        running = [
            tasks.create_task(_ask(me.node, node, candidates[node], asked, surveyor)) for node in asked
        ]
    reports = [report for task in running if (report := task.result()) is not None]
    hosts = tuple(report.host for report in reports)
    return SplitView(me, hosts, _agreed((me.node, *(host.node for host in hosts)), reports))


async def _ask(
    me: NodeId, node: NodeId, name: str, asked: Sequence[NodeId], surveyor: Surveyor
) -> _Report | None:
    try:
        answer = await surveyor.ask(node, [other for other in asked if other != node])
    except (Unreachable, Refused, PeerError) as error:
        logger.info("%s is no candidate for a stage: %s", name, error)
        return None
    here = await surveyor.measure(node)
    round_trips = {pair(me, node): inf if here is None else here}
    for told, other in zip(answer.round_trips, ids_of(trip.node for trip in answer.round_trips), strict=True):
        if other != node:
            round_trips[pair(node, other)] = inf if told.seconds is None else told.seconds
    host = StageHost(node, answer.memory_bytes_free, answer.weights_bytes_per_second, name)
    return _Report(host, round_trips)


def _agreed(nodes: Sequence[NodeId], reports: Sequence[_Report]) -> dict[Pair, float]:
    """Each pair as the one says that measured the longer way; infinite where neither found one."""
    agreed: dict[Pair, float] = {}
    for between in combinations(sorted(nodes), 2):
        told = [report.round_trips[between] for report in reports if between in report.round_trips]
        agreed[between] = max((seconds for seconds in told if seconds != inf), default=inf)
    return agreed
