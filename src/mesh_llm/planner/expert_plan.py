"""Where a mixture of experts runs that fits no node whole: in stages, exactly, or as a cut on each node that
keeps its best experts and answers alone, approximately.

Numbers in, a choice with its reason out. Counterparts: `splitting.py` plans stages, `expert_deal.py` says
which experts; files and tensors are not known here. Why so:
docs/decisions/0009-mixtures-that-fit-no-machine.md.
"""

from bisect import bisect_right
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from mesh_llm.core.errors import RequestRefused
from mesh_llm.core.experts import QUALITY_RATIO_MAX, ExpertLayout, ExpertRanking, ExpertShape, Kept, Quality
from mesh_llm.core.ids import NodeId
from mesh_llm.core.model import ModelFacts
from mesh_llm.core.quantities import human_bytes
from mesh_llm.core.stages import Cuttable, SplitBy
from mesh_llm.planner.expert_deal import core_of, dealt
from mesh_llm.planner.fit import CONTEXT_MIN, LOSSY_KV, Fit, Wish, choices, fit, least, predict
from mesh_llm.planner.split_plan import Measure, Plan, Stages, Whole
from mesh_llm.planner.split_view import SplitView
from mesh_llm.planner.splitting import SPEED_UNKNOWN
from mesh_llm.planner.stage_fit import stages_max


@dataclass(frozen=True, slots=True)
class Mixture:
    """What planning must know of a model that can be cut by experts."""

    facts: ModelFacts
    """As it lies in memory whole."""
    shape: ExpertShape
    trunk_bytes: int
    """Weights that every cut has."""
    expert_bytes: int
    """Of one expert in all layers together."""

    def cut_facts(self, count: int) -> ModelFacts:
        """Of a cut with so many experts; `parameters` stay those of the whole model."""
        missing = (self.shape.experts - count) * self.expert_bytes
        return replace(
            self.facts,
            weights_bytes=self.facts.weights_bytes - missing,
            experts=count,
            experts_used=self.shape.used_of(count),
        )

    @property
    def read_bytes(self) -> int:
        """For each token, of a cut as of the whole model: both use as many experts."""
        return self.trunk_bytes + self.shape.used * self.expert_bytes


@dataclass(frozen=True, slots=True)
class ExpertCut:
    """The largest that a node should hold."""

    count: int
    fit: Fit


@dataclass(frozen=True, slots=True)
class NoCut:
    """The node is too small for any."""

    missing_bytes: int
    because: str
    """For people, with what helps."""


def expert_cut(model: Mixture, room: int, wish: Wish) -> ExpertCut | NoCut:
    """What fits into `room` bytes, by the same prediction as for whole models.

    Half of the experts come before all else, then keys and values that change no answer, then the other
    experts. A context longer than the shortest takes what is left: who wants one says so, which nobody can of
    experts. Raises RequestRefused for a context beyond the model's.
    """
    shape = model.shape
    counts = range(-(-shape.fewest // shape.step) * shape.step, shape.experts + 1, shape.step)
    able = _held(counts, lambda count: least(model.cut_facts(count), wish).total, room)
    if not able:
        return _no_cut(model, counts[0], room, wish)
    gentle = _held(counts, lambda count: _gentle_bytes(model.cut_facts(count), wish), room)
    half = core_of(shape)
    count = max([*gentle, *(each for each in able if each <= half)])
    return ExpertCut(count, fit(model.cut_facts(count), room, wish))


def _held(counts: Sequence[int], need: Callable[[int], int], room: int) -> Sequence[int]:
    """Those whose need the room covers; more experts never need less."""
    return counts[: bisect_right(counts, room, key=need)]


def _gentle_bytes(facts: ModelFacts, wish: Wish) -> int:
    """With the shortest context that is of use, and keys and values that change no answer."""
    options = choices(facts, wish)
    shortest = min(options[0][1], CONTEXT_MIN)
    embeds = facts.pooling is not None
    return min(
        predict(facts, context, kv_type, wish.slots, embeddings=embeds, batch=wish.batch).total
        for kv_type, context in options
        if context >= shortest and kv_type not in LOSSY_KV
    )


def _no_cut(model: Mixture, fewest: int, room: int, wish: Wish) -> NoCut:
    need = least(model.cut_facts(fewest), wish).total
    return NoCut(
        need - room,
        f"A cut needs {human_bytes(need)} for its fewest experts, {fewest} of {model.shape.experts} in each"
        f" layer; {human_bytes(max(0, room))} are available. Free memory, give a smaller --ctx-size or fewer"
        " --parallel, or choose a smaller model or a smaller quantisation of it.",
    )


def assign(
    model: Mixture,
    ranking: ExpertRanking,
    rooms: Mapping[NodeId, int],
    layout: ExpertLayout,
    wish: Wish,
) -> dict[NodeId, Kept]:
    """What each node keeps in so many bytes; nodes that can hold no cut are left out.

    Raises ValueError for the ranking of another model, RequestRefused for a context beyond the model's.
    """
    cuts = {node: expert_cut(model, room, wish) for node, room in rooms.items()}
    counts = {node: cut.count for node, cut in cuts.items() if isinstance(cut, ExpertCut)}
    return dealt(model.shape, ranking, counts, layout)


@dataclass(frozen=True, slots=True)
class ExpertWish:
    """What somebody asked for."""

    split_by: SplitBy | None = None
    quality_ratio_max: float = QUALITY_RATIO_MAX


Way = Literal["whole", "layers", "experts", "measure", "judge", "wait"]
"""Whole on one node; stages; a cut here. Or first: round trips measured; a cut judged, then asked again; more
memory or another wish."""


@dataclass(frozen=True, slots=True)
class Choice:
    way: Way
    because: str
    """For people, with what helps."""
    split_tokens_per_second: float | None = None
    """Predicted, of a single stream over the stages; None where there are none."""
    cut_tokens_per_second: float | None = None


def choose(
    model: Mixture,
    view: SplitView,
    layers: Plan,
    cut: ExpertCut | NoCut,
    quality: Quality | None,
    wish: ExpertWish,
    *,
    can_judge: bool = True,
) -> Choice:
    """`layers`: what `splitting.plan` says of the same view; `cut`: what this node could hold; `quality`: of
    that cut, None where nobody has measured; `can_judge`: whether this node has the whole model to compare
    it with.

    What is exact comes first: whole, then in stages, wherever links allow them. A cut only where somebody
    asks for it, or where nothing else is possible and it was measured to be good enough.
    """
    split_speed = 1 / split_seconds(model, view, layers) if isinstance(layers, Stages) else None
    cut_speed = tokens_per_second(model, view.me.speed) if isinstance(cut, ExpertCut) else None

    def chosen(way: Way, because: str) -> Choice:
        return Choice(way, because, split_speed, cut_speed)

    if wish.split_by == "experts":
        if isinstance(cut, NoCut):
            return chosen("wait", cut.because)
        return chosen("experts", f"--split experts asks for a cut: {_described(model, cut, quality)}.")
    if isinstance(layers, Whole):
        return chosen("whole", layers.because)
    if isinstance(layers, Measure):
        return chosen("measure", layers.because)
    if isinstance(layers, Stages):
        return chosen("layers", layers.because + _instead(model, cut, quality, split_speed, cut_speed))
    if wish.split_by == "layers" or isinstance(cut, NoCut):
        cures = "" if isinstance(cut, ExpertCut) else f" {cut.because}"
        return chosen("wait", layers.because + cures)
    return chosen(*_last_resort(model, layers.because, cut, quality, wish, can_judge=can_judge))


def _last_resort(
    model: Mixture,
    no_stages: str,
    cut: ExpertCut,
    quality: Quality | None,
    wish: ExpertWish,
    *,
    can_judge: bool,
) -> tuple[Way, str]:
    described, most = _described(model, cut, quality), f"{wish.quality_ratio_max:g} x"
    if quality is None and can_judge:
        return "judge", (
            f"{no_stages} This node could hold a cut: {described}. It is served once it was measured to be"
            f" {most} or better, or with --split experts at once."
        )
    if quality is None:
        return "wait", (
            f"{no_stages} This node could hold a cut: {described}. It is served once it was measured to be"
            f" {most} or better, which takes the whole model: fetch it to this node's disk with `mesh-llm"
            " download`, start a node that has it and as much memory, or write --split experts."
        )
    if quality.ratio <= wish.quality_ratio_max:
        return "experts", f"{no_stages} So this node serves a cut: {described}."
    return "wait", (
        f"{no_stages} A cut for this node is {described}; unasked it may be {most}. To have it anyway, write"
        " --split experts, or allow more with --moe-quality."
    )


def _instead(
    model: Mixture,
    cut: ExpertCut | NoCut,
    quality: Quality | None,
    split_speed: float | None,
    cut_speed: float | None,
) -> str:
    """What a cut would be, beside stages that answer exactly."""
    if isinstance(cut, NoCut) or split_speed is None or cut_speed is None:
        return ""
    return (
        f" They answer exactly, at {split_speed:.1f} tokens/s as predicted. With --split experts this node"
        f" would answer alone, at {cut_speed:.1f}: {_described(model, cut, quality)}."
    )


def _described(model: Mixture, cut: ExpertCut, quality: Quality | None) -> str:
    experts = f"{cut.count} of {model.shape.experts} experts of each layer"
    if quality is None:
        return f"{experts}, approximate, and nobody has measured how much so"
    return f"{experts}, approximate, {quality.ratio:.2f} x the perplexity of the whole model"


def tokens_per_second(model: Mixture, speed: float) -> float:
    """Of a cut, as of the whole model in memory, for a single stream. `speed`: bytes of weights that the node
    reads a second, 0 where nobody has measured."""
    return (speed or SPEED_UNKNOWN) / model.read_bytes


def split_seconds(model: Mixture, view: SplitView, stages: Stages) -> float:
    """Of a token over stages: `Stages.seconds_per_token` counts all weights, a mixture reads some."""
    speeds = {host.node: host.speed for host in (view.me, *view.others)}
    unread = 1 - min(1.0, model.read_bytes / model.facts.weights_bytes)
    reading = sum(stage.need.weights / (speeds.get(stage.node) or SPEED_UNKNOWN) for stage in stages.stages)
    return max(stages.seconds_per_token - unread * reading, (1 - unread) * reading)


def refuse_split(
    split_by: SplitBy | None, layers: Cuttable | None, mixture: Mixture | None, why_not: str
) -> None:
    """Raises RequestRefused where the model cannot be cut as somebody asks. `layers`, `mixture`: None where
    it cannot be cut so at all; `why_not`: what was said of the mixture, empty for a dense model."""
    can_be_staged = layers is not None and stages_max(layers) >= 2
    if split_by == "experts" and mixture is None:
        reason = why_not or "The model is no mixture of experts, so --split experts cannot cut it."
        cure = "Write --split layers, or leave it out." if can_be_staged else "Leave out --split experts."
        raise RequestRefused(f"{reason} {cure}", parameter="split")
    if split_by == "layers" and not can_be_staged:
        cure = "Write --split experts" if mixture is not None else "Leave it out"
        raise RequestRefused(
            f"--split layers: models of this architecture cannot be run in stages. {cure}, or choose another"
            " model.",
            parameter="split",
        )
