"""A figure of a mixture that several nodes may lack, its ranking or what a cut costs: had from another node,
or waited for while that one measures it.

Counterpart: `planner/measuring_turns.py` says whose turn it is. What is measured, and how, is not known here.
"""

from collections.abc import Awaitable, Callable, Mapping
from typing import Protocol, TypeVar

from mesh_llm.core.ids import NodeId
from mesh_llm.core.offers import WOULD_MEASURE
from mesh_llm.planner.measuring_turns import whose_turn
from mesh_llm.splits.claims import SETTLE_S

LOOK_SECONDS = 2.0
"""Between looks at who has it, or measures it."""

LOOKS_MAX = 1800
"""An hour, which is what a measurement takes at most: who has not told by then never will."""

Figure = TypeVar("Figure")


class Tell(Protocol):
    """What is being done, for people; for other nodes whether this one measures (`CutOffer.measuring`)."""

    def __call__(self, what: str, measuring: str = "") -> None: ...


async def had_elsewhere(
    me: NodeId | None,
    others: Callable[[], Mapping[NodeId, str]],
    find: Callable[[], Awaitable[Figure | None]],
    tell_whom: Callable[[NodeId], None],
    sleep: Callable[[float], Awaitable[object]],
) -> Figure | None:
    """None where it is this node's turn to measure it, or where nobody can.

    `me`: None where this node cannot. It must have told others by now that it would: two that start at once
    hear of each other before either begins. `others`: who lacks it too, with what each says of measuring.
    `tell_whom`: who is waited for.
    """
    found = await find()
    if found is None:
        await sleep(SETTLE_S)
    for _ in range(LOOKS_MAX):
        found = found or await find()
        if found is not None:
            return found
        said = dict(others()) | ({me: WOULD_MEASURE} if me is not None else {})
        first = whose_turn(said)
        if first is None or first == me:
            return None
        tell_whom(first)
        await sleep(LOOK_SECONDS)
    return None
