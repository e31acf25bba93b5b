"""Which layers each stage of a ring gets, once it is known who is in it and in which order."""

from collections.abc import Sequence

from mesh_llm.planner.stage_fit import StageCosts

PREFILLS = 2
"""Steps of prefill that are weighed for each of decode."""

_Starts = dict[int, tuple[float, tuple[int, ...]]]
"""For each border where the next stage may begin: the least squares so far, and the starts up to it."""


def shares(costs: StageCosts, rooms: Sequence[int], speeds: Sequence[float]) -> tuple[int, ...] | None:
    """At which border each stage begins, the head's last; None where they cannot hold the model so.

    Of all legal cuts that fit, the one with the least sum of squares of the stages' times. Least time alone
    would leave a slightly slower node one layer and let it idle when many ask; equal times would make every
    token wait for the slowest. Among stages of one speed this is equal times.

    Steps of prefill count twice as much as those of decode, which alone read the output head: prompts are
    longer than answers. It matters to small models with large vocabularies.
    """
    starts: _Starts = {0: (0.0, (0,))}
    for place, (room, speed) in enumerate(zip(rooms[:-1], speeds[:-1], strict=True)):
        last = costs.last_cut - (len(rooms) - 2 - place)  # each later stage gets something as well
        starts = _after_one_more(costs, starts, room, speed, last)
    first = costs.head_border(rooms[-1])
    whole = [
        (so_far + _head_squares(costs, start, speeds[-1]), path)
        for start, (so_far, path) in starts.items()
        if start >= first and costs.is_legal(start, costs.end)
    ]
    return min(whole, default=(0.0, None))[1]


def seconds(costs: StageCosts, starts: Sequence[int], speeds: Sequence[float]) -> float:
    """That all stages together read weights for one token."""
    ends = starts[1:]
    remote = sum(
        (costs.read[end] - costs.read[start]) / speed
        for start, end, speed in zip(starts, ends, speeds, strict=False)
    )
    return remote + head_read(costs, starts[-1]) / speeds[-1]


def _after_one_more(costs: StageCosts, starts: _Starts, room: int, speed: float, last: int) -> _Starts:
    following: _Starts = {}
    for start, (so_far, path) in starts.items():
        for end in range(start + 1, costs.reach(start, room, last) + 1):
            squares = so_far + (1 + PREFILLS) * ((costs.read[end] - costs.read[start]) / speed) ** 2
            if costs.is_legal(start, end) and (end not in following or squares < following[end][0]):
                following[end] = (squares, (*path, end))
    return following


def _head_squares(costs: StageCosts, start: int, speed: float) -> float:
    decode = head_read(costs, start)
    prefill = decode - costs.head_read
    return (decode / speed) ** 2 + PREFILLS * (prefill / speed) ** 2


def head_read(costs: StageCosts, start: int) -> int:
    return costs.read[-1] - costs.read[start] + costs.head_read
