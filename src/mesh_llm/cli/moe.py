"""`mesh-llm moe analyze`: what a mixture of experts is made of, and which of its experts are best. `moe plan`
is in `moe_plan.py`."""

import json
import logging
import os
from argparse import Namespace
from collections.abc import Mapping
from typing import Any

from mesh_llm.cli import moe_plan
from mesh_llm.cli.display import display_for
from mesh_llm.cli.mixture import FoundMixture, found_mixture
from mesh_llm.core.errors import RequestRefused
from mesh_llm.core.experts import ExpertRanking
from mesh_llm.core.progress import Activity, Progress, Report
from mesh_llm.core.quantities import human_bytes
from mesh_llm.engine.experts.calibrating import Calibration, measure
from mesh_llm.engine.experts.settings import Loading
from mesh_llm.models.experts.detection import expert_widths, notes
from mesh_llm.models.experts.imatrix import ranking_of_imatrix
from mesh_llm.models.experts.ranking_files import kept_ranking, write_ranking
from mesh_llm.models.threads import run_to_end
from mesh_llm.node.own_models import measure_machine
from mesh_llm.planner.capacity import memory_for_models

logger = logging.getLogger(__name__)

PARTS_SHOWN = (0.25, 0.5, 0.75)
"""Of the experts: how much of what all add these best of each layer add."""

ACTIVITIES: Mapping[str, Activity] = {"loading": "load", "computing": "rank"}


async def run(arguments: Namespace) -> int:
    if arguments.action == "plan":
        return await moe_plan.run(arguments)
    if arguments.imatrix is not None and arguments.again:
        raise RequestRefused("--imatrix gives a ranking and --again measures one: leave out one of the two.")
    with display_for(arguments.log_format) as display:
        async with found_mixture(arguments, display.show) as found:
            analysis = _Analysis(found, display.show)
            ranking = await analysis.ranking(arguments)
    fields = _as_json(found, ranking, analysis.measured)
    if arguments.json:
        print(json.dumps(fields, indent=2))
    else:
        _show(found, fields)
    return 0


class _Analysis:
    def __init__(self, found: FoundMixture, report: Report) -> None:
        self._found = found
        self._report = report
        self.measured: Calibration | None = None
        """What the ranking was made of, if it was made now."""

    async def ranking(self, arguments: Namespace) -> ExpertRanking:
        """Raises RequestRefused, ModelDamaged, EngineFailed, DiskFull."""
        source, path = self._found.source, self._found.ranking_path
        shape = source.mixture.shape
        if arguments.imatrix is not None:
            widths = expert_widths(source.headers)
            ranking = await run_to_end(ranking_of_imatrix, arguments.imatrix, shape, widths)
        elif arguments.again:
            ranking = await self._measure()
        else:
            return await kept_ranking(path, source.identity, shape, self._measure, logger.warning)
        await run_to_end(write_ranking, path, source.identity, ranking)
        return ranking

    async def _measure(self) -> ExpertRanking:
        source = self._found.source
        if not source.files:
            raise RequestRefused(
                f"{source.name} is not on this disk, so its experts cannot be ranked here: fetch it with"
                f" `mesh-llm download {source.name}`, or give the importance matrix that was published with"
                " it (--imatrix FILE).",
                parameter="model",
            )
        _, machine = await measure_machine((), os.environ)
        is_larger = source.mixture.facts.weights_bytes > memory_for_models(machine, None)
        loading = Loading(str(source.files[0]), machine.cores, repacks=not is_larger)
        self.measured = await measure(source.files[0], source.mixture.shape, loading, on_share=self._tell)
        for word in ACTIVITIES:
            self._tell(word, 1.0)
        return self.measured.ranking

    def _tell(self, word: str, share: float) -> None:
        total = self._found.source.mixture.facts.weights_bytes
        self._report(Progress(ACTIVITIES[word], self._found.source.name, int(share * total), total))


def _as_json(found: FoundMixture, ranking: ExpertRanking, measured: Calibration | None) -> dict[str, Any]:
    mixture = found.source.mixture
    shape = mixture.shape
    return {
        "name": found.source.name,
        "architecture": mixture.facts.architecture,
        "experts": shape.experts,
        "experts_used": shape.used,
        "layers_with_experts": len(shape.layers),
        "groups": shape.groups,
        "groups_used": shape.groups_used,
        "trunk_bytes": mixture.trunk_bytes,
        "expert_bytes": mixture.expert_bytes,
        "fewest_experts": shape.fewest,
        "notes": list(notes(found.source.headers)),
        "ranking": {
            "source": ranking.source,
            "digest": ranking.digest,
            "file": str(found.ranking_path),
            "tokens_measured": measured and measured.tokens,
            "shares": measured and _shares(measured, shape.experts),
            "layers": {str(layer): list(ids) for layer, ids in ranking.by_layer.items()},
        },
    }


def _shares(measured: Calibration, experts: int) -> list[dict[str, float]]:
    """Of what all experts add, as the mean over layers and in the worst of them."""
    shown: list[dict[str, float]] = []
    for part in PARTS_SHOWN:
        count = max(1, round(part * experts))
        shares = [
            sum(sorted(sums, reverse=True)[:count]) / (sum(sums) or 1) for sums in measured.reap.values()
        ]
        worst = min(shares)
        shown.append({"best": count, "share": round(sum(shares) / len(shares), 4), "worst": round(worst, 4)})
    return shown


def _show(found: FoundMixture, fields: Mapping[str, Any]) -> None:
    shape, ranking = found.source.mixture.shape, fields["ranking"]
    groups = f", in {shape.groups} groups of which {shape.groups_used} are used" if shape.groups > 1 else ""
    print(f"{fields['name']} ({fields['architecture']}): {shape.experts} experts, {shape.used} used{groups},")
    print(f"in {len(shape.layers)} layers. It can be cut down to {shape.fewest} experts of each layer:")
    each, trunk = human_bytes(fields["expert_bytes"]), human_bytes(fields["trunk_bytes"])
    print(f"{trunk} that every cut has, and {each} for each expert.")
    for note in fields["notes"]:
        print(f"Note: {note}.")
    print(f"Ranking {ranking['digest'][:8]}: {ranking['source']}, kept in {ranking['file']}")
    for share in ranking["shares"] or ():
        best, mean, worst = share["best"], share["share"], share["worst"]
        print(
            f"  the best {best:3} of each layer add {mean:.1%} of the output, {worst:.1%} in the worst layer"
        )
    if ranking["shares"] is None:
        print("  how much its best experts add is told when it is measured: --again")
