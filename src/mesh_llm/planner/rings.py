"""Which nodes form a ring, and in which order: a search with bounds, since trying all orders never ends.

From the head on, paths grow by one node at a time. Of those that went through the same nodes to the same
last one the better is kept, and of all the best PATHS_MAX / nodes. So among seven candidates nothing is
missed, and among any number a step looks at no more than PATHS_MAX paths. Nodes are counted, 0 is the head's.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from heapq import nsmallest
from itertools import islice
from typing import NamedTuple

from mesh_llm.core.stages import STAGES_MAX
from mesh_llm.planner.layer_shares import shares
from mesh_llm.planner.stage_fit import StageCosts

PATHS_MAX = 2048

RINGS_DEALT = 16
"""So many rings are kept where lengths are refused: each is dealt out to see whether it can be cut."""

MORE_STAGES = 2


class Path(NamedTuple):
    hosts: tuple[int, ...]
    """Of remote stages, in order."""
    used: int
    """The same as a set of bits."""
    border: int
    """Up to which the model is held, where each holds as much as it can, in stages of any length."""
    delay: float
    """One way over each link so far, in seconds."""

    @property
    def last(self) -> int:
        return self.hosts[-1] if self.hosts else 0


START = Path((), 0, 0, 0.0)

Rank = Callable[[Path], tuple[float, ...]]


@dataclass(frozen=True, slots=True)
class Ground:
    """Where rings are searched. From every node the head can be reached."""

    rooms: tuple[int, ...]
    """Bytes for the model on each node."""
    speeds: tuple[float, ...]
    """Bytes a second."""
    delays: tuple[tuple[float | None, ...], ...]
    """One way between two nodes, in seconds; None where no ring may pass."""

    @property
    def nodes(self) -> int:
        return len(self.rooms)

    def as_if_all_were_near(self) -> "Ground":
        return Ground(self.rooms, self.speeds, ((0.0,) * self.nodes,) * self.nodes)


def roomiest(path: Path) -> tuple[float, ...]:
    return (-path.border, path.delay)


def quickest(ground: Ground, costs: StageCosts, stages: int) -> Rank:
    """By the time of a token, if layers went by the squares of speeds (`layer_shares.py`) and all fitted.
    Paths that the roomiest nodes could not complete to a ring of so many stages come last."""
    spare = sorted((max(0, room - costs.remote_bytes) for room in ground.rooms[1:]), reverse=True)
    held = costs.held[costs.head_border(ground.rooms[0])]

    def rank(path: Path) -> tuple[float, ...]:
        speeds = [ground.speeds[host] for host in (0, *path.hosts)]
        reading = costs.read[-1] * sum(speeds) / sum(speed * speed for speed in speeds)
        time = reading + round_time(ground, path)
        within_reach = costs.held[path.border] + sum(spare[: stages - 1 - len(path.hosts)])
        return (within_reach < held, time, -path.border)

    return rank


def grown(
    ground: Ground, costs: StageCosts, rank: Rank, *, stages: int | None = None
) -> Iterator[list[Path]]:
    """Paths of no remote stage, of one, of two, ...; the best first. `stages`: in a ring of exactly so many,
    head included, each later stage gets something as well."""
    width = max(1, PATHS_MAX // ground.nodes)
    paths = [START]
    for length in range(1, ground.nodes + 1):
        yield paths
        last = costs.last_cut - (0 if stages is None else stages - 1 - length)
        best: dict[tuple[int, int], tuple[tuple[float, ...], Path]] = {}
        for path in paths:
            for longer in _longer(ground, costs, path, last):
                key, ranked = (longer.used, longer.last), (rank(longer), longer)
                if key not in best or ranked < best[key]:
                    best[key] = ranked
        paths = [path for _, path in nsmallest(width, best.values())]


def fewest(ground: Ground, costs: StageCosts, *, stages: int | None = None) -> list[Path]:
    """Rings of the least possible number of nodes, or of `stages`; none where that cannot be.

    Lengths that are refused are looked at last: where no cut of a ring is legal, one or two more nodes are
    tried.
    """
    if stages is not None:
        return _of(ground, costs, stages)
    head_border = costs.head_border(ground.rooms[0])
    for remote, paths in enumerate(islice(grown(ground, costs, roomiest), STAGES_MAX)):
        rings = [path for path in paths if remote > 0 and path.border >= head_border]
        if rings:
            return _legal(ground, costs, rings) or _of_more(ground, costs, remote + 1)
    return []


def _of_more(ground: Ground, costs: StageCosts, stages: int) -> list[Path]:
    for more in range(stages + 1, stages + 1 + MORE_STAGES):
        rings = _of(ground, costs, more)
        if rings:
            return rings
    return []


def _of(ground: Ground, costs: StageCosts, stages: int) -> list[Path]:
    head_border = costs.head_border(ground.rooms[0])
    steps = islice(grown(ground, costs, roomiest, stages=stages), stages - 1, stages)
    rings = [path for paths in steps for path in paths if path.border >= head_border]
    return _legal(ground, costs, rings)


def _legal(ground: Ground, costs: StageCosts, rings: list[Path]) -> list[Path]:
    if not costs.lengths_refused:
        return rings
    return list(islice((ring for ring in rings if _is_legal(ground, costs, ring)), RINGS_DEALT))


def holds(ground: Ground, costs: StageCosts, ring: Path) -> bool:
    """Whether the same nodes hold the model at other costs too."""
    border = 0
    for later, host in reversed(list(enumerate(reversed(ring.hosts)))):
        reached = costs.reach(border, ground.rooms[host], costs.last_cut - later)
        if reached <= border:
            return False
        border = reached
    return border >= costs.head_border(ground.rooms[0]) and _is_legal(ground, costs, ring)


def farthest(ground: Ground, costs: StageCosts, *, remote_stages_max: int) -> int:
    """The border up to which so many remote stages hold the model."""
    paths = islice(grown(ground, costs, roomiest), remote_stages_max + 1)
    return max(path.border for some in paths for path in some)


def round_time(ground: Ground, path: Path) -> float:
    """Seconds once round the ring, without computing."""
    return path.delay + (ground.delays[path.last][0] or 0.0)


def _is_legal(ground: Ground, costs: StageCosts, ring: Path) -> bool:
    """Where no length is refused, as much for each as it can hold will do; else layers must be dealt out."""
    if not costs.lengths_refused or not ring.hosts:
        return True
    nodes = (*ring.hosts, 0)
    return shares(costs, [ground.rooms[node] for node in nodes], [1.0] * len(nodes)) is not None


def _longer(ground: Ground, costs: StageCosts, path: Path, last: int) -> Iterator[Path]:
    delays = ground.delays[path.last]
    for host in range(1, ground.nodes):
        delay = delays[host]
        if path.used >> host & 1 or delay is None:
            continue
        border = costs.reach(path.border, ground.rooms[host], last)
        if border > path.border:
            yield Path((*path.hosts, host), path.used | 1 << host, border, path.delay + delay)
