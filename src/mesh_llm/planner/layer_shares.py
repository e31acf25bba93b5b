"""Which layers each stage of a ring gets, once it is known who is in it and in which order."""

from collections.abc import Sequence

from mesh_llm.planner.stage_fit import StageCosts


def shares(costs: StageCosts, rooms: Sequence[int], speeds: Sequence[float]) -> tuple[int, ...]:
    """At which border each stage begins, the head's last. Raises ValueError where they cannot hold the model
    (`rings.holds`).

    Of all legal cuts that fit, the one with the least sum of squares of the stages' times. Least time alone
    would leave a slightly slower node one layer and let it idle when many ask; equal times would make every
    token wait for the slowest. Among stages of one speed this is equal times.
    """
    starts: dict[int, tuple[float, tuple[int, ...]]] = {0: (0.0, (0,))}
    for place, (room, speed) in enumerate(zip(rooms[:-1], speeds[:-1], strict=True)):
        last = costs.last_cut - (len(rooms) - 2 - place)  # each later stage gets something as well
        following: dict[int, tuple[float, tuple[int, ...]]] = {}
        for start, (so_far, path) in starts.items():
            for end in range(start + 1, min(costs.reach(start, room), last) + 1):
                squares = so_far + ((costs.read[end] - costs.read[start]) / speed) ** 2
                if end not in following or squares < following[end][0]:
                    following[end] = (squares, (*path, end))
        starts = following
    first = costs.head_border(rooms[-1])
    whole = [
        (so_far + (head_read(costs, start) / speeds[-1]) ** 2, path)
        for start, (so_far, path) in starts.items()
        if start >= first
    ]
    if not whole:
        raise ValueError("these nodes cannot hold the model in this order")
    return min(whole)[1]


def seconds(costs: StageCosts, starts: Sequence[int], speeds: Sequence[float]) -> float:
    """That all stages together read weights for one token."""
    ends = starts[1:]
    remote = sum(
        (costs.read[end] - costs.read[start]) / speed
        for start, end, speed in zip(starts, ends, speeds, strict=False)
    )
    return remote + head_read(costs, starts[-1]) / speeds[-1]


def head_read(costs: StageCosts, start: int) -> int:
    return costs.read[-1] - costs.read[start] + costs.head_read
