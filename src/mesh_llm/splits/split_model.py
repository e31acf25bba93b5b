"""The life of a model that this node would run over several: who leads, a plan, its assembly, the next plan.

To the gateway it is a backend, as a supervisor is. While another node leads, that one's answers come through
the mesh, and this one lends it memory if asked.
"""

import asyncio
import logging
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import replace
from typing import Protocol

from mesh_llm.core.errors import MeshError
from mesh_llm.core.ids import NodeId, short
from mesh_llm.core.serving import (
    Condition,
    Endpoint,
    Failed,
    Loading,
    Ready,
    Restarting,
    ServedModel,
    Stopped,
    Waiting,
)
from mesh_llm.core.stages import SplitClaim, StageHolding
from mesh_llm.planner.split_plan import Measure, Plan, Stages, Wait, Whole
from mesh_llm.runtime.bell import Bell
from mesh_llm.runtime.clock import Clock
from mesh_llm.runtime.dropping import Droppable, UntilUnused, bounded
from mesh_llm.splits.assembly import Assembly, LaunchHead, Site
from mesh_llm.splits.borrowed_stage import StageLost
from mesh_llm.splits.borrowed_whole import borrowed_whole
from mesh_llm.splits.claims import Candidacy, Follow, Lead, Settling, is_serving
from mesh_llm.splits.split_source import SplitSource

logger = logging.getLogger(__name__)

LOOKS_APART_S = 1.0
"""Between two looks at the claims of others; also rung by every change of the mesh."""

PLANS_APART_S = 5.0
"""Between two plans while memory is missing, and after one that failed to come about; the mesh may ring for
the next."""

PAUSE_S = 0.5
"""Between two plans in any case: a busy node's bell rings with every request."""

YIELD_SECONDS_MAX = 30.0
"""For answers under way when another one comes first, or the model is dropped."""


class Scene(Protocol):
    """What the mesh looks like to who would lead."""

    def claims(self, model: str) -> Mapping[NodeId, SplitClaim]:
        """Of all other living members, of this model."""
        ...

    async def plan(self) -> Plan:
        """Asks the candidates, and plans. Raises MeshError where it can never be split as wished."""
        ...


class SplitModel:
    def __init__(
        self,
        model: ServedModel,
        source: SplitSource,
        site: Site,
        scene: Scene,
        launch_head: LaunchHead,
        room_bytes: int,
        clock: Clock,
        until_unused: UntilUnused,
        changes: Bell,
        on_change: Callable[[], None],
    ) -> None:
        """`changes` rings when members or their claims change; `on_change` is told when `condition` or
        `claim` has become another."""
        self.model = model
        self.condition: Condition = Waiting("it looks around who else wants to run it")
        self._source = source
        self._site = site
        self._scene = scene
        self._launch_head = launch_head
        self._candidacy = Candidacy(site.me, source.identity, room_bytes)
        self._clock = clock
        self._until_unused = until_unused
        self._changes = changes
        self._on_change = on_change
        self._changed = Bell()
        self._last_end = "it broke off the answer without a word"
        self._yields = False
        """Another one comes first: what is being answered may end, whatever the ring does."""
        self._life = Droppable()

    def __repr__(self) -> str:
        return f"<SplitModel {self.model.name} {self.condition}>"

    @property
    def claim(self) -> SplitClaim | None:
        """None once it was dropped."""
        return None if self._life.is_dropped else self._candidacy.claim

    async def run(self) -> None:
        """Until it is dropped; cancelling gives everything back at once."""
        try:
            await self._life.live(self._live(), name=f"life of {self.model.name}")
        except asyncio.CancelledError:
            self._become(Stopped())
            raise

    async def drop(
        self, reason: str, until_unused: UntilUnused, seconds_max: float = YIELD_SECONDS_MAX
    ) -> None:
        """Gives the model up for good, as `engine.supervisor.Supervisor.drop` does: nobody new is served, the
        claim is withdrawn, and once `until_unused` returns, at the latest after `seconds_max`, every stage is
        given back and the head stopped. Returns when `run` has, which must be running or have ended."""
        if not self._life.is_dropped:
            self._last_end = reason
            self._become(Stopped())
            self._life.drop(until_unused, seconds_max)
            self._on_change()
        await self._life.wait_for_end()

    async def explain_failure(self) -> str:
        """Why an answer was broken off: the reason of the ring's end, once it is known, or the last one."""
        with suppress(TimeoutError):
            async with asyncio.timeout(LOOKS_APART_S):
                while isinstance(self.condition, Ready):
                    await self._changed.wait_for_ring()
        return self._last_end

    async def _live(self) -> None:
        while not self._life.is_dropped:
            match self._standing():
                case Lead():
                    await self._lead()
                case Follow(leader):
                    self._become(Waiting(self._what_does(leader)))
                    await self._wait(LOOKS_APART_S)
                case Settling(until):
                    left = LOOKS_APART_S if until is None else max(0.0, until - self._clock.monotonic())
                    await self._wait(min(left, LOOKS_APART_S))

    # -- leading -------------------------------------------------------------------------------------------

    async def _lead(self) -> None:
        """Until another one leads, or there must be a new plan."""
        async with asyncio.TaskGroup() as tasks:
            leading = tasks.create_task(self._plan_and_run(), name=f"split {self.model.name}")
            yielding = tasks.create_task(self._wait_for_better(), name="claims")
            await asyncio.wait((leading, yielding), return_when=asyncio.FIRST_COMPLETED)
            if not leading.done() and isinstance(self.condition, Ready):
                await self._yield(leading)
            leading.cancel()
            yielding.cancel()

    async def _wait_for_better(self) -> None:
        while self._life.is_dropped or isinstance(self._standing(), Lead):
            await self._wait(LOOKS_APART_S)

    async def _yield(self, leading: "asyncio.Task[None]") -> None:
        """Takes nothing new, and lets what is being answered end. No longer than the ring lasts."""
        logger.info("%s: another node comes first; answers under way may end", self.model.name)
        self._become(Waiting("another node comes first; ask any node of the mesh"))
        self._yields = True
        try:
            async with asyncio.TaskGroup() as tasks:
                ending = tasks.create_task(bounded(self._until_unused, YIELD_SECONDS_MAX))
                await asyncio.wait((leading, ending), return_when=asyncio.FIRST_COMPLETED)
                ending.cancel()
        finally:
            self._yields = False

    async def _plan_and_run(self) -> None:
        try:
            plan = await self._scene.plan()
        except MeshError as refusal:
            self._become(Failed(str(refusal)))
            await asyncio.Event().wait()
            return
        match plan:
            case Stages():
                await self._assemble(plan)
            case Whole(node=node) if node != self._site.me:
                await self._have_run(plan)
            case Wait(because=because) | Measure(because=because) | Whole(because=because):
                if self.condition != Waiting(because):
                    logger.warning("%s: %s", self.model.name, because)
                self._become(Waiting(because))
                await asyncio.sleep(PAUSE_S)
                await self._wait(PLANS_APART_S)

    async def _assemble(self, plan: Stages) -> None:
        self._show(plan)
        self._become(Loading(0.0))
        try:
            begun = Assembly.begun(plan, self._source, self._site, self._launch_head, self._show_progress)
            async with begun as assembly:
                endpoint = await assembly.wait_until_loaded()
                reason = await assembly.run(lambda: self._up(endpoint), self._down)
        except (StageLost, MeshError) as failure:
            reason = str(failure)
        await self._end_plan(reason)

    async def _end_plan(self, reason: str) -> None:
        """And a breath before the next one."""
        self._candidacy.serving(False)
        self._last_end = reason
        logger.warning("%s: %s; a new plan is made", self.model.name, reason)
        was_up = not isinstance(self.condition, Loading)
        self._tell(Restarting(reason, 1, retry_after_s=1))
        if self._yields or self._life.is_dropped:
            return
        await asyncio.sleep(PAUSE_S)
        await self._wait(LOOKS_APART_S if was_up else PLANS_APART_S)

    async def _have_run(self, plan: Whole) -> None:
        """By another node, for as long as both want it."""
        logger.info("%s: %s", self.model.name, plan.because)
        self._become(Loading(0.0))
        try:
            async with borrowed_whole(plan, self._source, self._site, self._show_progress) as whole:
                await whole.wait_until_accepted()
                await whole.wait_until_ready()
                self._candidacy.serving(True)
                self._become(Waiting(f"{self._name_of(plan.node)} runs it whole; ask any node of the mesh"))
                reason = await whole.wait_until_lost()
        except StageLost as lost:
            reason = str(lost)
        await self._end_plan(reason)

    def _show(self, plan: Stages) -> None:
        names = self._site.names()
        holdings = tuple(
            StageHolding(stage.node, names.get(stage.node, ""), stage.layers, stage.node == self._site.me)
            for stage in plan.stages
        )
        self.model = replace(
            self.model,
            stages=holdings,
            context_length=plan.context,
            kv_type=plan.kv_type,
            slots=plan.sequences,
        )
        logger.info("%s: %s", self.model.name, plan.because)
        for holding in holdings:
            does = "samples and answers" if holding.is_head else "computes"
            logger.info("  %s on %s %s", holding.layers, holding.node_name or short(holding.node), does)

    def _show_progress(self, fraction: float) -> None:
        if isinstance(self.condition, Loading):
            self._become(Loading(fraction))

    def _up(self, endpoint: Endpoint) -> None:
        self._candidacy.serving(True)
        self._tell(Ready(endpoint))
        logger.info("%s is ready", self.model.name)

    def _down(self, reason: str) -> None:
        self._candidacy.serving(False)
        self._last_end = reason
        self._tell(Restarting(reason, 1, retry_after_s=1))

    def _tell(self, condition: Condition) -> None:
        """How the ring does, unless nobody is to be sent there any more."""
        if not self._yields:
            self._become(condition)

    # ------------------------------------------------------------------------------------------------------

    def _standing(self) -> Lead | Follow | Settling:
        claims = self._scene.claims(self._source.identity)
        before = self._candidacy.claim
        standing = self._candidacy.handle(claims, self._clock.monotonic())
        if self._candidacy.claim != before:
            self._on_change()
        return standing

    def _what_does(self, leader: NodeId) -> str:
        """Who leads may be unable to run it, or not willing to: memory is missing, or a cut is too poor."""
        name, claim = self._name_of(leader), self._scene.claims(self._source.identity).get(leader)
        if claim is not None and is_serving(claim):
            return f"{name} runs it; ask any node of the mesh"
        return f"{name} leads it and does not answer yet: `mesh-llm status` there says why"

    def _name_of(self, node: NodeId) -> str:
        return self._site.names().get(node) or short(node)

    async def _wait(self, seconds: float) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._changes.wait_for_ring()

    def _become(self, condition: Condition) -> None:
        if condition == self.condition or self._life.is_dropped:
            return
        self.condition = condition
        if isinstance(condition, Waiting | Failed):
            self.model = replace(self.model, stages=())  # nobody holds anything any more
        self._changed.ring()
        self._on_change()
