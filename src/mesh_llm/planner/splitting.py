"""Where a model runs that may need several nodes. One frozen view in, one plan out; the same for everybody
who sees the same, whatever the order of the candidates.

Whole wherever it fits. Else the fewest nodes; among as many, the least time for a token. Only links that were
measured count. Why so: docs/decisions/0007-splitting.md.
"""

from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence
from itertools import combinations, groupby, islice
from math import inf
from statistics import median

from mesh_llm.core.errors import RequestRefused
from mesh_llm.core.quantities import human_bytes
from mesh_llm.core.stages import STAGES_MAX, Cuttable, LayerRange
from mesh_llm.planner.fit import CONTEXT_MIN, Wish, choices, fit, least
from mesh_llm.planner.layer_shares import seconds, shares
from mesh_llm.planner.rings import Ground, Path, farthest, fewest, grown, holds, quickest, round_time
from mesh_llm.planner.split_plan import Measure, Plan, PlannedStage, Stages, Wait, Whole
from mesh_llm.planner.split_view import HOSTS_MAX, SplitView, SplitWish, StageHost, pair
from mesh_llm.planner.stage_fit import StageCosts, predict_stage, stage_costs, stages_max

SPEED_UNKNOWN = 10e9
"""Bytes a second where nobody has measured: two channels of older memory."""

CONTENDERS_MIN = 8
"""So many of the nearest and of the roomiest nodes are asked for their round trips to each other at first;
twice as many each time that they do not do."""

NAMED_MAX = 5
"""Nodes that were left out, in a message."""

STAGES_WEIGHED = 24
"""In all the rings whose layers are dealt out to compare their times: 12 rings of two."""


def plan(model: Cuttable, view: SplitView, wish: SplitWish) -> Plan:
    """Raises RequestRefused where the wish can never be met: a context beyond the model's training, more
    stages than it can be cut into, or a forced split of a model that cannot be cut."""
    if wish.stages is not None:
        _check_stages(model, wish.stages)
        return _Splitting(model, view, wish).plan()
    need = least(model.facts, _fit_wish(wish)).total
    whole = _whole(model, view, wish, need)
    if whole is not None:
        return whole
    if stages_max(model) < 2:
        return _uncuttable(model, view, need)
    return _Splitting(model, view, wish).plan()


def _fit_wish(wish: SplitWish) -> Wish:
    return Wish(wish.context, wish.slots, wish.batch)


def _whole(model: Cuttable, view: SplitView, wish: SplitWish, need: int) -> Whole | None:
    """Here, else on the quickest of the others that hold it, else on the roomiest of them."""
    fitting = [host for host in view.others if host.memory_bytes >= need]
    if view.me.memory_bytes >= need:
        host, because = view.me, "The whole model fits this node."
    elif fitting:
        host = min(fitting, key=lambda host: (-host.speed, -host.memory_bytes, host.node))
        because = f"The whole model fits {host.label}, and not this node."
    else:
        return None
    return Whole(host.node, fit(model.facts, host.memory_bytes, _fit_wish(wish)), because)


def _uncuttable(model: Cuttable, view: SplitView, need: int) -> Wait:
    most = max(host.memory_bytes for host in (view.me, *view.others))
    return Wait(
        need - most,
        f"The model needs {human_bytes(need)} on one node, since {_cannot_be_cut(model)}; the most that one"
        f" has for it is {human_bytes(most)}. Start mesh-llm on a machine with more memory, or choose a"
        " smaller model or a smaller quantisation of it.",
    )


def _check_stages(model: Cuttable, stages: int) -> None:
    most = min(stages_max(model), STAGES_MAX)
    if most < 2:
        raise RequestRefused(
            f"--split was given, but {_cannot_be_cut(model)}: leave it out, or choose another model.",
            parameter="split",
        )
    if stages != 0 and not 2 <= stages <= most:
        raise RequestRefused(
            f"--stages {stages}: this model can be cut into 2 to {most} stages. Give a number of these, or"
            " --split alone.",
            parameter="split",
        )


def _cannot_be_cut(model: Cuttable) -> str:
    return f"models of architecture {model.facts.architecture} cannot be run in stages"


class _Splitting:
    """One plan for a model that is to be cut."""

    def __init__(self, model: Cuttable, view: SplitView, wish: SplitWish) -> None:
        self._model = model
        self._view = view
        self._wish = wish
        self._stages = wish.stages or None
        self._choices = choices(model.facts, _fit_wish(wish))
        self._least = self._costs(*self._choices[-1])
        self._smallest = self._least.smallest_need
        others = {host.node: host for host in view.others if host.node != view.me.node}.values()
        self._small = [host for host in others if host.memory_bytes < self._smallest]
        able = [host for host in others if host.memory_bytes >= self._smallest]
        self._far = [host for host in able if (self._round_trip(host) or 0.0) > wish.round_trip_max_s]
        near = sorted(set(able) - set(self._far), key=lambda host: (-host.memory_bytes, host.node))
        self._near = sorted(near[:HOSTS_MAX], key=lambda host: host.node)
        """Who could hold a stage and is not known to be far."""
        known = [host.speed for host in (view.me, *self._near) if host.speed > 0]
        self._usual_speed = median(known) if known else SPEED_UNKNOWN

    def plan(self) -> Plan:
        hoped = self._fewest(self._ground(self._near, unmeasured=0.0))
        if not hoped:
            return self._wait()
        unmeasured = self._unmeasured((self._view.me, host) for host in self._near)
        return unmeasured or self._ring(stages_min=len(hoped[0].hosts) + 1)

    def _ring(self, *, stages_min: int) -> Plan:
        """`stages_min`: what it would take if all were near whose round trip is not known yet."""
        found: tuple[Sequence[StageHost], list[Path]] | None = None
        for contenders in self._contenders(stages_min):
            if stages_min > 2:  # a ring of two has no link but the head's own
                unmeasured = self._unmeasured(combinations(contenders, 2))
                if unmeasured is not None:
                    return unmeasured
            rings = self._fewest(self._ground(contenders))
            if rings and (found is None or len(rings[0].hosts) < len(found[1][0].hosts)):
                found = contenders, rings
            if rings and len(rings[0].hosts) + 1 == stages_min:
                break
        return self._wait() if found is None else self._cut(*found)

    def _contenders(self, stages: int) -> Iterator[Sequence[StageHost]]:
        """The nearest and the roomiest, more each time, in the end all."""
        count = len(self._near) if stages == 2 else max(CONTENDERS_MIN, stages)
        nearest = sorted(self._near, key=lambda host: (self._round_trip(host) or 0.0, host.node))
        roomiest = sorted(self._near, key=lambda host: (-host.memory_bytes, host.node))
        while True:
            chosen = {host.node: host for host in (*nearest[:count], *roomiest[:count])}
            yield [chosen[node] for node in sorted(chosen)]
            if count >= len(self._near):
                return
            count *= 2

    def _cut(self, hosts: Sequence[StageHost], rings: list[Path]) -> Stages:
        """The best context that any of these rings holds, then the quickest ring that holds it."""
        ground = self._ground(hosts)
        kv_type, context, costs = self._best_costs(ground, rings)
        stages = len(rings[0].hosts) + 1
        rank = quickest(ground, costs, stages)
        quick = next(islice(grown(ground, costs, rank, stages=stages), stages - 1, None))
        promising = sorted({*quick, *rings}, key=lambda ring: (rank(ring), ring))
        able = islice(
            (ring for ring in promising if holds(ground, costs, ring)), max(1, STAGES_WEIGHED // stages)
        )
        time, ring, starts = min(self._weighed(ground, costs, ring) for ring in able)
        nodes = [hosts[host - 1] for host in ring.hosts] + [self._view.me]
        layers = [costs.borders[start] for start in (*starts, costs.end)]
        return Stages(
            tuple(
                self._planned(node, LayerRange(first, end), context, kv_type)
                for node, first, end in zip(nodes, layers, layers[1:], strict=False)
            ),
            context,
            kv_type,
            self._wish.slots,
            self._batch(context),
            time,
            self._why_split(stages),
        )

    def _best_costs(self, ground: Ground, rings: list[Path]) -> tuple[str, int, StageCosts]:
        """Of one KV type the longest context that is held, found by halving, since more never fits better."""

        def is_held(choice: tuple[str, int]) -> bool:
            costs = self._costs(*choice)
            return any(holds(ground, costs, ring) for ring in rings)

        for _, same_type in groupby(self._choices[:-1], key=lambda choice: choice[0]):
            run = list(same_type)
            place = bisect_left(run, True, key=is_held)
            if place < len(run):
                return *run[place], self._costs(*run[place])
        return *self._choices[-1], self._least

    def _weighed(self, ground: Ground, costs: StageCosts, ring: Path) -> tuple[float, Path, tuple[int, ...]]:
        nodes = (*ring.hosts, 0)
        speeds = [ground.speeds[node] for node in nodes]
        starts = shares(costs, [ground.rooms[node] for node in nodes], speeds)
        if starts is None:
            raise AssertionError(f"{ring} holds the model, and no cut of it does")
        return seconds(costs, starts, speeds) + round_time(ground, ring), ring, starts

    def _planned(self, host: StageHost, layers: LayerRange, context: int, kv_type: str) -> PlannedStage:
        need = predict_stage(
            self._model,
            layers,
            is_head=host is self._view.me,
            context=context,
            kv_type=kv_type,
            sequences=self._wish.slots,
            batch=self._batch(context),
        )
        return PlannedStage(host.node, layers, need)

    # -- what there is ------------------------------------------------------------------------------------

    def _fewest(self, ground: Ground) -> list[Path]:
        return fewest(ground, self._least, stages=self._stages)

    def _ground(self, hosts: Sequence[StageHost], *, unmeasured: float = inf) -> Ground:
        """`unmeasured`: seconds of a round trip that is not known."""
        nodes = (self._view.me, *hosts)
        return Ground(
            tuple(node.memory_bytes for node in nodes),
            tuple(node.speed if node.speed > 0 else self._usual_speed for node in nodes),
            tuple(tuple(self._delay(one, other, unmeasured) for other in nodes) for one in nodes),
        )

    def _delay(self, one: StageHost, other: StageHost, unmeasured: float) -> float | None:
        """One way, in seconds; None where no ring may pass."""
        round_trip = self._view.round_trips.get(pair(one.node, other.node), unmeasured)
        return round_trip / 2 if round_trip <= self._wish.round_trip_max_s else None

    def _round_trip(self, host: StageHost) -> float | None:
        return self._view.round_trips.get(pair(self._view.me.node, host.node))

    def _unmeasured(self, links: Iterable[tuple[StageHost, StageHost]]) -> Measure | None:
        pairs = {pair(one.node, other.node) for one, other in links} - self._view.round_trips.keys()
        if not pairs:
            return None
        return Measure(tuple(sorted(pairs)), "How far the nodes are from each other is not known yet.")

    def _costs(self, kv_type: str, context: int) -> StageCosts:
        return stage_costs(
            self._model,
            context=context,
            kv_type=kv_type,
            sequences=self._wish.slots,
            batch=self._batch(context),
        )

    def _batch(self, context: int) -> int:
        return min(self._wish.batch, context)

    # -- what people are told -----------------------------------------------------------------------------

    def _why_split(self, stages: int) -> str:
        if self._wish.stages is not None:
            return f"A split was asked for: {stages} nodes hold it together.{self._left_out()}"
        return f"No node holds the whole model: {stages} hold it together, and no fewer.{self._left_out()}"

    def _wait(self) -> Wait:
        me, head_least = self._view.me, self._least.head_need(self._least.last_cut)
        if me.memory_bytes < head_least:
            return Wait(head_least - me.memory_bytes, self._no_head(head_least))
        ground = self._ground(self._near, unmeasured=0.0)
        missing = self._missing(ground)
        whole = least(self._model.facts, _fit_wish(self._wish)).total
        needs = f"The model needs {human_bytes(whole)} whole."
        return Wait(missing, f"{needs} {self._lacking(ground, missing)}{self._left_out()}")

    def _lacking(self, ground: Ground, missing: int) -> str:
        if self._stages is not None and ground.nodes < self._stages:
            more = self._stages - ground.nodes
            return (
                f"--stages {self._stages} takes as many nodes, this one included: {more} more must join, near"
                f" by and with {human_bytes(missing)} for it."
            )
        if self._fewest(ground.as_if_all_were_near()):
            return (
                "The nodes that could hold it together are too far from each other for a ring, or have not"
                f" reached each other yet. One more near by with {human_bytes(missing)} would do."
            )
        nodes = "This node alone" if ground.nodes == 1 else f"The {ground.nodes} nodes within reach"
        return (
            f"{nodes}, with {human_bytes(sum(ground.rooms))} for it, cannot hold it in stages."
            f" {human_bytes(missing)} are missing: start mesh-llm on one more machine near by that has so"
            f" much, free memory on these{self._smaller_context()}, or choose a smaller model or a smaller"
            " quantisation of it."
        )

    def _missing(self, ground: Ground) -> int:
        """What one more node must have to close the gap before the head."""
        stages = self._stages or STAGES_MAX
        reached = farthest(ground, self._least, remote_stages_max=stages - 2)
        end = max(reached, self._least.head_border(ground.rooms[0]))
        stage = self._least.remote_need(reached, self._least.shortest(reached, end)) if end > reached else 0
        return max(self._smallest, stage)

    def _no_head(self, need: int) -> str:
        return (
            f"The node that starts a model holds its output head and last layers. They need"
            f" {human_bytes(need)}, and this node has {human_bytes(self._view.me.memory_bytes)} for them."
            f" Start the model on a node with more memory, or free memory here."
        )

    def _smaller_context(self) -> str:
        asked = self._wish.context
        return ", a smaller --ctx-size" if asked is not None and asked > CONTEXT_MIN else ""

    def _left_out(self) -> str:
        """Who was not counted, and why."""
        most = round(self._wish.round_trip_max_s * 1000)
        far = [
            f"{host.label} ({_distance(self._round_trip(host) or 0.0)}, {most} ms are the most)"
            for host in self._far
        ]
        small = [
            f"{host.label} ({human_bytes(host.memory_bytes)}: too little for a stage)" for host in self._small
        ]
        names = [*sorted(far), *sorted(small)]
        if not names:
            return ""
        more = f" and {len(names) - NAMED_MAX} more" if len(names) > NAMED_MAX else ""
        return f" Not counted: {', '.join(names[:NAMED_MAX])}{more}."


def _distance(round_trip: float) -> str:
    return "cannot be reached from here" if round_trip == inf else f"{round_trip * 1000:.0f} ms away"
