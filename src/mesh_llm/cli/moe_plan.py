"""`mesh-llm moe plan`: what machines with so much memory would hold of a mixture of experts."""

import json
import logging
from argparse import Namespace
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

from mesh_llm.cli import tables
from mesh_llm.cli.display import display_for
from mesh_llm.cli.mixture import FoundMixture, found_mixture
from mesh_llm.core.errors import ModelDamaged, RequestRefused
from mesh_llm.core.experts import ExpertRanking, Kept, Quality
from mesh_llm.core.ids import NodeId
from mesh_llm.core.quantities import human_bytes
from mesh_llm.models.experts.ranking_files import read_ranking
from mesh_llm.models.gguf.stageable import cuttable
from mesh_llm.planner.expert_plan import (
    Choice,
    ExpertCut,
    ExpertWish,
    NoCut,
    assign,
    choose,
    expert_cut,
    tokens_per_second,
)
from mesh_llm.planner.fit import Wish
from mesh_llm.planner.split_view import SplitView, SplitWish, StageHost, pair
from mesh_llm.planner.splitting import plan

logger = logging.getLogger(__name__)

NEAR_S = 0.001
"""Round trip that is taken for granted: a cable between two machines."""


@dataclass(frozen=True, slots=True)
class Row:
    host: StageHost
    cut: ExpertCut | NoCut
    quality: Quality | None
    """None where there is no cut, or nobody has measured it here."""


async def run(arguments: Namespace) -> int:
    """Status 0 also where some of the machines can hold no cut: the table says so."""
    with display_for(arguments.log_format) as display:
        async with found_mixture(arguments, display.show) as found:
            hosts = [
                StageHost(NodeId(f"{place:064x}"), room, arguments.speed, f"node {place}")
                for place, room in enumerate(arguments.nodes, 1)
            ]
            rows = _rows(found, hosts, arguments)
            choice = _choice(found, hosts, rows[0], arguments)
    if arguments.json:
        print(json.dumps(_as_json(found, rows, choice), indent=2))
    else:
        _show(found, rows, choice)
    return 0


def _rows(found: FoundMixture, hosts: Sequence[StageHost], arguments: Namespace) -> list[Row]:
    mixture, wish = found.source.mixture, _wish(arguments)
    ranking = _ranking(found)
    rooms = {host.node: host.memory_bytes for host in hosts}
    lists = assign(mixture, ranking, rooms, arguments.moe_layout or "best", wish) if ranking else {}
    qualities: Mapping[NodeId, Quality | None] = (
        {node: _measured(found, ranking, kept) for node, kept in lists.items()} if ranking else {}
    )
    return [
        Row(host, expert_cut(mixture, host.memory_bytes, wish), qualities.get(host.node)) for host in hosts
    ]


def _measured(found: FoundMixture, ranking: ExpertRanking, kept: Kept) -> Quality | None:
    """What is damaged is not known, and people are told: the figures are missing in what they see."""
    try:
        return found.quality(ranking.digest, kept)
    except ModelDamaged as error:
        logger.warning("%s: %s The node that serves it does that.", found.source.name, error)
        return None


def _ranking(found: FoundMixture) -> ExpertRanking | None:
    """The one that is kept here; without it counts can be told all the same."""
    name = found.source.name
    try:
        return read_ranking(found.ranking_path, found.source.identity, found.source.mixture.shape)
    except ModelDamaged as error:
        logger.warning("%s: %s `mesh-llm moe analyze %s` does that.", name, error, name)
        return None


def _choice(
    found: FoundMixture, hosts: Sequence[StageHost], first: Row, arguments: Namespace
) -> Choice | None:
    """What the first node would do with the others near by; None where the model cannot be staged at all."""
    trips = {pair(one.node, other.node): NEAR_S for one, other in combinations(hosts, 2)}
    view = SplitView(hosts[0], tuple(hosts[1:]), trips)
    try:
        layers = plan(cuttable(found.source.headers), view, SplitWish(arguments.ctx_size, arguments.parallel))
    except RequestRefused:
        return None
    return choose(found.source.mixture, view, layers, first.cut, first.quality, ExpertWish())


def _wish(arguments: Namespace) -> Wish:
    return Wish(arguments.ctx_size, arguments.parallel)


def _as_json(found: FoundMixture, rows: Sequence[Row], choice: Choice | None) -> dict[str, Any]:
    return {
        "name": found.source.name,
        "experts": found.source.mixture.shape.experts,
        "nodes": [_row_as_json(found, row) for row in rows],
        "way": choice and choice.way,
        "because": choice and choice.because,
        "split_tokens_per_second": choice and choice.split_tokens_per_second,
    }


def _row_as_json(found: FoundMixture, row: Row) -> dict[str, Any]:
    cut = row.cut if isinstance(row.cut, ExpertCut) else None
    quality = row.quality
    return {
        "memory_bytes": row.host.memory_bytes,
        "experts_kept": cut and cut.count,
        "memory_bytes_needed": cut and cut.fit.need.total,
        "context_length": cut and cut.fit.context,
        "kv_type": cut and cut.fit.kv_type,
        "tokens_per_second": cut and round(tokens_per_second(found.source.mixture, row.host.speed), 1),
        "perplexity_ratio": quality and round(quality.ratio, 3),
        "kl": quality and round(quality.kl, 4),
        "same_top": quality and round(quality.same_top, 3),
        "problem": None if isinstance(row.cut, ExpertCut) else row.cut.because,
    }


def _show(found: FoundMixture, rows: Sequence[Row], choice: Choice | None) -> None:
    titles = ("node", "memory>", "experts>", "needs>", "context>", "tokens/s>", "quality")
    tables.show(titles, (_cells(found, row) for row in rows))
    for row in rows:
        if isinstance(row.cut, NoCut):
            print(f"{row.host.label}: {row.cut.because}")
    if choice is not None:
        print(f"What {rows[0].host.label} would do with the others near by: {choice.because}")
    if any(_is_unmeasured(row, found.source.mixture.shape.experts) for row in rows):
        print("What a cut costs is measured by the node that serves it, and from then on told here as well.")


def _cells(found: FoundMixture, row: Row) -> tuple[str, ...]:
    memory = human_bytes(row.host.memory_bytes)
    if isinstance(row.cut, NoCut):
        return (row.host.label, memory, "none", "", "", "", "")
    mixture, fitted = found.source.mixture, row.cut.fit
    speed = f"{tokens_per_second(mixture, row.host.speed):.1f}"
    experts = f"{row.cut.count} of {mixture.shape.experts}"
    need, context = human_bytes(fitted.need.total), f"{fitted.context:,}"
    return (row.host.label, memory, experts, need, context, speed, _quality(row, mixture.shape.experts))


def _quality(row: Row, experts: int) -> str:
    if isinstance(row.cut, ExpertCut) and row.cut.count == experts:
        return "exact: the whole model"
    if row.quality is None:
        return "approximate, not measured"
    return f"approximate, {row.quality.ratio:.2f} x perplexity, KL {row.quality.kl:.3f}"


def _is_unmeasured(row: Row, experts: int) -> bool:
    return isinstance(row.cut, ExpertCut) and row.cut.count < experts and row.quality is None
