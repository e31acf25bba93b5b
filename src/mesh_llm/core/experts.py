"""Experts of a model that is a mixture of them: how many there are, which are best, which a node keeps.

Values that planning, the makers of cuts, engines and people share. Whose files these are is not known here.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, Self

RANKING_DIGEST_BYTES = 16
"""Enough that nobody finds a second ranking of the same digest by chance."""

KEPT_PER_GROUP_MIN = 2
"""llama-graph.cpp (`build_moe_ffn`) scores a group by its best two experts."""

KEPT_MIN = 2
"""One expert would leave the router nothing to choose."""

ExpertLayout = Literal["best", "shared"]
"""Who keeps which: `best` is as many of the best as the node holds; `shared` is the better half everywhere,
and the others dealt out, so that each is somewhere."""

QUALITY_RATIO_MAX = 1.15
"""Perplexity of a cut against that of the whole model: above it nobody is given a cut unasked."""


@dataclass(frozen=True, slots=True)
class ExpertShape:
    """The mixture of one model, as its header and its tensors say it."""

    experts: int
    """Of each layer that has any: llama.cpp knows one number for all."""
    used: int
    """For each token; where layers differ, the largest."""
    layers: tuple[int, ...]
    """That hold experts, ascending; with those that only draft, which have experts too."""
    groups: int = 1
    """Neighbouring experts are chosen by groups first; 1 where they are not."""
    groups_used: int = 1

    def __post_init__(self) -> None:
        if not (0 < self.used <= self.experts and 0 < self.groups_used <= self.groups):
            raise ValueError(f"{self} uses more than it has")
        if self.experts % self.groups or list(self.layers) != sorted(set(self.layers)) or not self.layers:
            raise ValueError(f"{self} has uneven groups, or no layers in order")

    @property
    def step(self) -> int:
        """A cut keeps a multiple of so many: equally many of each group."""
        return self.groups

    @property
    def fewest_possible(self) -> int:
        """A cut of fewer would not load, or choose wrongly."""
        of_all = KEPT_MIN if self.groups == 1 else KEPT_PER_GROUP_MIN * self.groups
        return min(self.experts, of_all)

    @property
    def fewest(self) -> int:
        """A cut of fewer would use fewer for each token than the model does, which changes what it says even
        where none of the chosen is missing: scales that are folded into weights are for so many."""
        of_each = -(-self.used // self.groups_used)
        return min(self.experts, max(self.fewest_possible, of_each * self.groups))

    def used_of(self, count: int) -> int:
        """For each token, in a cut of so many: as many as in the model wherever there are so many."""
        return min(self.used, count // self.groups * self.groups_used)

    def allows(self, count: int) -> bool:
        """Whether a cut may keep so many."""
        return self.fewest_possible <= count <= self.experts and count % self.step == 0

    def at_most(self, count: int) -> int | None:
        """The most up to `count` that a cut should keep; None where that would be fewer than `fewest`."""
        most = min(count, self.experts) // self.step * self.step
        return most if most >= self.fewest else None


@dataclass(frozen=True, slots=True)
class Kept:
    """The experts of one cut."""

    by_layer: Mapping[int, tuple[int, ...]]
    """Their ids in the whole model, ascending; the same number in each layer."""

    def __post_init__(self) -> None:
        if len({len(ids) for ids in self.by_layer.values()}) != 1:
            raise ValueError(
                "a cut keeps the same number of experts in each of its layers, of which it has one"
            )
        if any(list(ids) != sorted(set(ids)) or ids[:1] < (0,) for ids in self.by_layer.values()):
            raise ValueError("the experts of a cut are different, ascending, and counted from 0")

    @property
    def count(self) -> int:
        """In each layer."""
        return len(next(iter(self.by_layer.values())))

    @property
    def digest(self) -> str:
        return lists_digest(self.by_layer)


@dataclass(frozen=True, slots=True)
class ExpertRanking:
    """All experts of each layer, best first. `of` makes it."""

    by_layer: Mapping[int, tuple[int, ...]]
    source: str
    """Where it is from, for people: `measured here`, a file's name, a node's."""
    digest: str
    """Of the lists alone: equal rankings from anywhere have the same."""

    @classmethod
    def of(cls, by_layer: Mapping[int, tuple[int, ...]], source: str) -> Self:
        return cls(dict(by_layer), source, lists_digest(by_layer))


@dataclass(frozen=True, slots=True)
class Quality:
    """What a cut costs, measured against the full model on the same held-out tokens."""

    perplexity: float
    full_perplexity: float
    kl: float
    """Mean of KL(full || cut) over tokens, in nats."""
    same_top: float
    """Share of tokens for which both would say the same, 0 to 1."""
    tokens: int
    """That were scored."""

    @property
    def ratio(self) -> float:
        """Of the perplexities: 1.0 is as good as the full model."""
        return self.perplexity / self.full_perplexity


def lists_digest(by_layer: Mapping[int, Sequence[int]]) -> str:
    """BLAKE2b of lists of experts, as hex digits; the same whatever order the layers are in."""
    text = ";".join(f"{layer}:{','.join(map(str, by_layer[layer]))}" for layer in sorted(by_layer))
    return hashlib.blake2b(
        text.encode(), digest_size=RANKING_DIGEST_BYTES, person=b"mesh-llm experts"
    ).hexdigest()


def filled(by_layer: Mapping[int, tuple[int, ...]], shape: ExpertShape) -> dict[int, tuple[int, ...]]:
    """A list for each layer of the shape. Layers that only draft never run while experts are measured: they
    get the list of the nearest layer before them. Raises ValueError where there is none."""
    lists: dict[int, tuple[int, ...]] = {}
    for layer in shape.layers:
        nearest = max((each for each in by_layer if each <= layer), default=None)
        if nearest is None:
            raise ValueError(f"no experts are listed for layer {layer}")
        lists[layer] = by_layer[nearest]
    return lists


def best(ranking: ExpertRanking, count: int, shape: ExpertShape) -> Kept:
    """The `count` best of each layer; with groups, equally many of each group.

    Raises ValueError where the shape does not allow so many (`ExpertShape.at_most` finds one that is), or
    the ranking is of another model.
    """
    if not shape.allows(count):
        raise ValueError(f"{count} experts cannot be kept of {shape}")
    lists = filled(ranking.by_layer, shape)
    if any(sorted(ids) != list(range(shape.experts)) for ids in lists.values()):
        raise ValueError(f"a ranking lists each of {shape.experts} experts once")
    return Kept({layer: _best_of(ids, count, shape) for layer, ids in lists.items()})


def _best_of(ids: Sequence[int], count: int, shape: ExpertShape) -> tuple[int, ...]:
    size, each = shape.experts // shape.groups, count // shape.groups
    groups = [[expert for expert in ids if expert // size == group] for group in range(shape.groups)]
    return tuple(sorted(expert for group in groups for expert in group[:each]))
