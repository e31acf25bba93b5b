"""One plan carried out: stages borrowed from other nodes, a head of our own, and the ring through them.

Its owner (`split_model.py`) decides when there is a new plan; this one begins when it is entered and ends
when something of it is lost. A ring that breaks while every stage lives is linked anew, without loading
again.
"""

import asyncio
import logging
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from random import Random
from typing import Protocol

from mesh_llm.core.ids import NodeId
from mesh_llm.core.serving import Endpoint
from mesh_llm.core.stages import Activations
from mesh_llm.mesh.transport import PeerError, Refused, Unreachable
from mesh_llm.planner.split_plan import PlannedStage, Stages
from mesh_llm.runtime.bell import Bell
from mesh_llm.runtime.tasks import beside
from mesh_llm.splits.borrowed_stage import BorrowedStage, StageLost, borrowed_stage
from mesh_llm.splits.bridging import bridge, child_socket
from mesh_llm.splits.faults import one_fault
from mesh_llm.splits.holder_link import Open
from mesh_llm.splits.messages import ID_BYTES, Assign, Link, RingHello, bytes_of
from mesh_llm.splits.ring_door import RingDoor, ring_to
from mesh_llm.splits.split_source import SplitSource

logger = logging.getLogger(__name__)

LINK_SECONDS_MAX = 30.0
"""For every stage to be connected to its neighbours, and for the head to have heard its ring."""

LINK_TRIES_MAX = 3
"""In a row. A ring that cannot be linked so often needs another plan."""

SETTLE_SECONDS = 1.0
"""After the ring broke: for word of a lost stage to come, before the ring is linked anew."""


class Head(Protocol):
    """The head's process; `PipelineHead` is one."""

    @property
    def socket_path(self) -> str: ...

    async def wait_until_loaded(self) -> Endpoint:
        """Raises EngineFailed."""
        ...

    async def wait_for_end(self) -> str: ...


OnRing = Callable[[bool], None]
"""Whether the ring answers requests now."""


class LaunchHead(Protocol):
    def __call__(
        self, plan: Stages, on_progress: Callable[[float], None], on_ring: OnRing, /
    ) -> AbstractAsyncContextManager[Head]:
        """Its stage file obtained, its process started. Entering raises MeshError."""
        ...


@dataclass(frozen=True, slots=True)
class Site:
    """What an assembly is built with, whatever the plan."""

    me: NodeId
    open_stream: Open
    door: RingDoor
    names: Callable[[], Mapping[NodeId, str]]
    holders: Callable[[], Sequence[NodeId]]
    """Members that hold the model whole."""
    activations: Activations | None
    chance: Random


class Assembly:
    """Use as `async with Assembly.begun(...)`: leaving gives every stage back and stops the head."""

    def __init__(
        self, plan: Stages, source: SplitSource, site: Site, on_progress: Callable[[float], None]
    ) -> None:
        self._plan = plan
        self._source = source
        self._site = site
        self._on_progress = on_progress
        self._ring = site.chance.randbytes(ID_BYTES)
        self._shares = dict.fromkeys(range(len(plan.stages)), 0.0)
        self._changed = Bell()
        self._is_up = False
        self._stages: list[BorrowedStage] = []
        self._head: Head

    @classmethod
    @asynccontextmanager
    async def begun(
        cls,
        plan: Stages,
        source: SplitSource,
        site: Site,
        launch_head: LaunchHead,
        on_progress: Callable[[float], None],
    ) -> "AsyncGenerator[Assembly]":
        """Every stage has been asked for and has accepted, and the head is on its way. Raises StageLost, and
        MeshError where the head cannot be obtained."""
        assembly = cls(plan, source, site, on_progress)
        async with AsyncExitStack() as stack:
            for number, planned in enumerate(plan.stages[:-1], start=1):
                stage = await stack.enter_async_context(assembly._borrow(number, planned))
                assembly._stages.append(stage)
            for stage in assembly._stages:
                await stage.wait_until_accepted()
            launching = launch_head(plan, assembly._progress_of(0), assembly._hear_ring)
            assembly._head = await stack.enter_async_context(launching)
            yield assembly

    async def wait_until_loaded(self) -> Endpoint:
        """Every stage and the head. Raises StageLost, EngineFailed."""
        for stage in self._stages:
            await stage.wait_until_ready()
        return await self._head.wait_until_loaded()

    async def run(self, on_up: Callable[[], None], on_down: Callable[[str], None]) -> str:
        """Rings, one after the other; returns what was lost, and why no further ring can be."""
        tries, reason = 0, ""
        while tries < LINK_TRIES_MAX:
            reason, was_up = await self._live_once(on_up)
            tries = 1 if was_up else tries + 1
            on_down(reason)
            logger.warning("the ring of %s broke: %s", self._source.name, reason)
            lost = await self._what_was_lost(SETTLE_SECONDS)
            if lost is not None:
                return lost
        return f"its ring could not be linked in {LINK_TRIES_MAX} tries: {reason}"

    def _borrow(self, number: int, planned: PlannedStage) -> AbstractAsyncContextManager[BorrowedStage]:
        plan, source = self._plan, self._source
        assign = Assign(
            ring=self._ring,
            model=source.identity,
            name=source.name,
            parts=source.parts,
            holders=bytes_of(self._site.holders()),
            first=planned.layers.first,
            end=planned.layers.end,
            stage=number,
            context=plan.context,
            sequences=plan.sequences,
            batch=plan.batch,
            kv_type=plan.kv_type,
            activations=self._site.activations or "f32",
            memory_bytes=planned.need.total,
        )
        name = self._site.names().get(planned.node, "")
        return borrowed_stage(self._site.open_stream, planned.node, name, assign, self._progress_of(number))

    def _progress_of(self, number: int) -> Callable[[float], None]:
        def report(share: float) -> None:
            self._shares[number] = max(self._shares[number], share)
            self._on_progress(sum(self._shares.values()) / len(self._shares))

        return report

    def _hear_ring(self, is_up: bool) -> None:
        self._is_up = is_up
        self._changed.ring()

    # -- one life of the ring ------------------------------------------------------------------------------

    async def _live_once(self, on_up: Callable[[], None]) -> tuple[str, bool]:
        """Returns why it ended, and whether requests could be answered."""
        self._is_up = False
        session = self._site.chance.randbytes(ID_BYTES)
        was_up = False
        async with asyncio.TaskGroup() as tasks:
            ring = tasks.create_task(self._ring_of(session), name="ring")
            loss = tasks.create_task(self._what_was_lost(None), name="loss")
            up = tasks.create_task(self._wait_until_up(), name="ring up")
            every = {ring, loss}
            await asyncio.wait(
                (ring, loss, up), timeout=LINK_SECONDS_MAX, return_when=asyncio.FIRST_COMPLETED
            )
            if up.done() and not (ring.done() or loss.done()):
                was_up = True
                on_up()
                await asyncio.wait((ring, loss), return_when=asyncio.FIRST_COMPLETED)
            if not (ring.done() or loss.done()):
                reason = f"not every stage was linked within {LINK_SECONDS_MAX:.0f} s"
            else:
                reason = (loss.result() or "") if loss.done() else ring.result()
            for task in (*every, up):
                task.cancel()
        return reason, was_up

    async def _ring_of(self, session: bytes) -> str:
        """Link every stage, then pass bytes on until it ends; returns why."""
        remote = [stage.node for stage in self._stages]
        here = RingHello(ring=self._ring, session=session, stage=0)
        first = RingHello(ring=self._ring, session=session, stage=1)
        try:
            with one_fault():
                async with (
                    self._site.door.expect(here, remote[-1]) as arrived,
                    beside(linking=self._link_all(session)),
                    ring_to(remote[0], first, self._site.open_stream) as outgoing,
                    child_socket(self._head.socket_path) as child,
                ):
                    return await bridge(child, await arrived, outgoing)
        except (Unreachable, Refused, PeerError) as fault:
            return str(fault)
        except OSError as error:
            return f"the head's process takes no connection: {error}"

    async def _link_all(self, session: bytes) -> None:
        async with asyncio.TaskGroup() as tasks:
            for number, stage in enumerate(self._stages):
                tasks.create_task(_linked(stage, self._link(session, number)))

    def _link(self, session: bytes, number: int) -> Link:
        """For the remote stage of this place, from 0."""
        nodes = [self._site.me, *(stage.node for stage in self._stages), self._site.me]
        previous, _, following = bytes_of(nodes[number : number + 3])
        is_last = number == len(self._stages) - 1
        return Link(
            session=session,
            previous=previous,
            following=following,
            following_stage=0 if is_last else number + 2,
        )

    async def _wait_until_up(self) -> None:
        while not self._is_up:
            await self._changed.wait_for_ring()

    async def _what_was_lost(self, seconds: float | None) -> str | None:
        """The first stage or the head that is gone; None where all are there after so long."""
        async with asyncio.TaskGroup() as tasks:
            waits = [tasks.create_task(stage.wait_until_lost()) for stage in self._stages]
            waits.append(tasks.create_task(self._head_lost()))
            done, _ = await asyncio.wait(waits, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
            for wait in waits:
                wait.cancel()
        return next((wait.result() for wait in waits if wait in done), None)

    async def _head_lost(self) -> str:
        return f"the head's process ended: {await self._head.wait_for_end()}"


async def _linked(stage: BorrowedStage, link: Link) -> None:
    """A stage that is lost breaks the ring as a stream does."""
    try:
        await stage.link(link)
    except StageLost as lost:
        raise Unreachable(str(lost)) from lost
