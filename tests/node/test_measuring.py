"""A figure that several nodes lack, as each of them comes by it."""

from collections.abc import Callable, Mapping

from mesh_llm.core.ids import NodeId
from mesh_llm.core.offers import MEASURES_NOW, WOULD_MEASURE
from mesh_llm.node.measuring import LOOKS_MAX, had_elsewhere

ME, OTHER = NodeId("b" * 64), NodeId("a" * 64)


class World:
    """What others say at each look, and when one of them tells the figure."""

    def __init__(self, said: Callable[[int], Mapping[NodeId, str]], told_at: float = float("inf")) -> None:
        self._said = said
        self._told_at = told_at
        self.looks = 0
        self.waited_for: list[NodeId] = []

    async def sleep(self, _seconds: float) -> None:
        self.looks += 1

    async def find(self) -> str | None:
        return "figure" if self.looks >= self._told_at else None

    async def had(self, me: NodeId | None = ME) -> str | None:
        others = lambda: self._said(self.looks)  # noqa: E731
        return await had_elsewhere(me, others, self.find, self.waited_for.append, self.sleep)


async def test_what_another_node_knows_is_taken_at_once():
    world = World(lambda _: {}, told_at=0)
    assert await world.had() == "figure" and world.looks == 0


async def test_a_node_alone_measures_once_others_could_have_spoken():
    world = World(lambda _: {})
    assert await world.had() is None and world.looks == 1 and not world.waited_for


async def test_while_another_measures_it_is_waited_for():
    world = World(lambda _: {OTHER: MEASURES_NOW}, told_at=5)
    assert await world.had() == "figure" and set(world.waited_for) == {OTHER}


async def test_if_that_one_goes_or_fails_this_node_measures():
    for left in ({}, {OTHER: ""}):
        world = World(lambda look, left=left: {OTHER: WOULD_MEASURE} if look < 4 else left)
        assert await world.had() is None and world.looks == 4


async def test_nobody_is_waited_for_for_ever():
    world = World(lambda _: {OTHER: MEASURES_NOW})
    assert await world.had() is None and world.looks == LOOKS_MAX + 1


async def test_who_cannot_measure_waits_for_who_can_and_for_nobody_else():
    assert await World(lambda _: {OTHER: WOULD_MEASURE}, told_at=9).had(None) == "figure"
    assert await World(lambda _: {OTHER: ""}).had(None) is None
