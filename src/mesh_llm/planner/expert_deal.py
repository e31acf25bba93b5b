"""Which experts each node keeps. Rankings and counts in, lists out; the same for everybody who knows the same
nodes, whatever their order. How many a node can hold is not known here: `expert_plan.py` says.
"""

import hashlib
from collections.abc import Collection, Iterable, Mapping, Sequence

from mesh_llm.core.experts import ExpertLayout, ExpertRanking, ExpertShape, Kept, best, filled
from mesh_llm.core.ids import NodeId


def dealt(
    shape: ExpertShape, ranking: ExpertRanking, counts: Mapping[NodeId, int], layout: ExpertLayout
) -> dict[NodeId, Kept]:
    """`counts`: that each node keeps in each layer. Raises ValueError as `best` does.

    With `best` a node's list is its own matter: whoever joins or leaves changes no other's.
    """
    of_count = {count: best(ranking, count, shape) for count in set(counts.values())}
    kept = {node: of_count[count] for node, count in sorted(counts.items())}
    if layout == "best":
        return kept
    core = core_of(shape)
    size, first = shape.experts // shape.groups, core // shape.groups
    free = {node: count // shape.groups - first for node, count in counts.items() if count > core}
    places = _shared_out(range(first, size), free)
    return kept | {node: _kept_at(shape, ranking, (*range(first), *mine)) for node, mine in places.items()}


def kept_beside(
    others: Mapping[NodeId, int],
    me: NodeId,
    count: int,
    shape: ExpertShape,
    ranking: ExpertRanking,
    layout: ExpertLayout,
) -> Kept:
    """What `me` keeps, `count` experts of each layer, beside members who say how many they keep.

    What no cut of this model can hold is not believed, and shares nothing out. Raises ValueError as `best`.
    """
    believed = {node: said for node, said in others.items() if shape.allows(said)}
    return dealt(shape, ranking, believed | {me: count}, layout)[me]


def core_of(shape: ExpertShape) -> int:
    """Of a shared layout: the better half, which is everywhere."""
    half = -(-shape.experts // (2 * shape.step)) * shape.step
    return min(shape.experts, max(half, shape.fewest))


def _shared_out(places: Collection[int], free: Mapping[NodeId, int]) -> dict[NodeId, set[int]]:
    """Each place of a ranking goes to one node that has room, the best that is left fills what stays free.

    By rendezvous hashing: a pair of node and place has its number, low numbers choose first. So a node that
    joins takes what is its own, and hardly anything moves between the others. Where there is not room for
    all, the last of the ranking have no home.
    """
    mine: dict[NodeId, set[int]] = {node: set() for node in free}
    places = sorted(places)[: sum(free.values())]
    homeless = set(places)
    for _, place, node in sorted((_number(node, place), place, node) for node in free for place in places):
        if place in homeless and len(mine[node]) < free[node]:
            mine[node].add(place)
            homeless.discard(place)
    for node, held in mine.items():
        others = [place for place in places if place not in held]
        held.update(others[: free[node] - len(held)])
    return mine


def _number(node: NodeId, place: int) -> bytes:
    return hashlib.blake2b(f"{node}:{place}".encode(), digest_size=8).digest()


def _kept_at(shape: ExpertShape, ranking: ExpertRanking, places: Iterable[int]) -> Kept:
    """The experts at these places of each group's ranking, in each layer."""
    wanted = sorted(places)
    return Kept(
        {
            layer: tuple(sorted(group[place] for group in _by_group(ids, shape) for place in wanted))
            for layer, ids in filled(ranking.by_layer, shape).items()
        }
    )


def _by_group(ids: Sequence[int], shape: ExpertShape) -> list[list[int]]:
    groups: list[list[int]] = [[] for _ in range(shape.groups)]
    for expert in ids:
        groups[expert * shape.groups // shape.experts].append(expert)
    return groups
