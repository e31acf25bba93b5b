"""What a node could hold and how far it is from others: asked by who would lead a split, answered here.

A round trip is measured, never assumed: where there is no connection yet, one is opened for it.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager, suppress
from dataclasses import dataclass
from typing import Protocol

from mesh_llm.core.ids import NodeId
from mesh_llm.mesh.neighbour import Reach
from mesh_llm.mesh.transport import Kind, PeerError, Refused, Stream, Unreachable
from mesh_llm.splits import messages
from mesh_llm.splits.messages import RoundTrip, Survey, Surveyed, bytes_of, ids_of

MEASURE_SECONDS_MAX = 12.0
"""To open a connection (10 s at most) and hear a pong."""

SURVEY_SECONDS_MAX = MEASURE_SECONDS_MAX + 5.0

LOOKS_APART_S = 0.05

DIRECT_SECONDS_MAX = 2.0
"""A new connection over a relay becomes a direct one within a second or two, where it can."""


class Network(Protocol):
    """What is asked of the mesh; `Mesh` is one."""

    def stream(self, node: NodeId, kind: Kind) -> AbstractAsyncContextManager[Stream]: ...

    def reach_of(self, node: NodeId) -> Reach | None: ...


@dataclass(frozen=True, slots=True)
class Room:
    """What this node could give a stage now."""

    memory_bytes_free: int
    weights_bytes_per_second: float = 0.0
    """How fast a token goes through weights here; 0 where it was not measured."""


class Surveyor:
    def __init__(
        self, network: Network, room: Callable[[], Awaitable[Room]], is_member: Callable[[NodeId], bool]
    ) -> None:
        """`is_member`: who may be dialled because somebody asks how far it is."""
        self._network = network
        self._room = room
        self._is_member = is_member

    async def answer(self, stream: Stream, survey: Survey) -> None:
        """Raises Unreachable."""
        nodes = [node for node in dict.fromkeys(ids_of(survey.nodes)) if self._is_member(node)]
        async with asyncio.TaskGroup() as tasks:
            trips = {node: tasks.create_task(self.measure(node)) for node in nodes}
            room = await self._room()
        said = Surveyed(
            memory_bytes_free=room.memory_bytes_free,
            weights_bytes_per_second=room.weights_bytes_per_second,
            round_trips=tuple(
                RoundTrip(node=node, seconds=trips[node_id].result() if node_id in trips else None)
                for node, node_id in zip(survey.nodes, ids_of(survey.nodes), strict=True)
            ),
        )
        await stream.send(messages.encode(said))
        await stream.finish()

    async def ask(self, node: NodeId, others: Sequence[NodeId] = ()) -> Surveyed:
        """What the node could hold, and how far it is from the others.

        Raises Unreachable, Refused, PeerError.
        """
        try:
            async with (
                asyncio.timeout(SURVEY_SECONDS_MAX),
                self._network.stream(node, Kind.STAGE) as stream,
            ):
                await stream.send(messages.encode(Survey(nodes=bytes_of(others))))
                await stream.finish()
                answer = messages.decode_from_holder(await stream.receive() or b"")
        except TimeoutError:
            raise Unreachable("the survey was not answered in time") from None
        if not isinstance(answer, Surveyed):
            raise PeerError("an answer to a survey that is none")
        return answer

    async def measure(self, node: NodeId) -> float | None:
        """Seconds of a round trip; None where there is no way, or none that answers in time."""
        reach = self._network.reach_of(node)
        if reach is None or reach.round_trip_s is None:
            with suppress(Unreachable, Refused, PeerError, TimeoutError):
                async with asyncio.timeout(MEASURE_SECONDS_MAX):
                    await self._get_acquainted(node)
            reach = self._network.reach_of(node)
        return reach.round_trip_s if reach else None

    async def _get_acquainted(self, node: NodeId) -> None:
        """With a stream open: an idle connection is not measured."""
        async with self._network.stream(node, Kind.STAGE) as stream:
            await stream.send(messages.encode(Survey()))
            await stream.receive()
            looks = 0
            while (reach := self._network.reach_of(node)) is not None and (
                reach.round_trip_s is None
                or (reach.is_relayed and looks * LOOKS_APART_S < DIRECT_SECONDS_MAX)
            ):
                looks += 1
                await asyncio.sleep(LOOKS_APART_S)
