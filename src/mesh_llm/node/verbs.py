"""What a person may ask of a running node: `console.verbs.Verbs`, done by the parts that it concerns."""

from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Protocol

from mesh_llm.console.whom import find_node
from mesh_llm.core.errors import ModelNotFound, RequestRefused
from mesh_llm.core.serving import ServedModel
from mesh_llm.engine.supervisor import DROP_SECONDS_MAX
from mesh_llm.gateway.app import Gateway
from mesh_llm.mesh.service import Mesh
from mesh_llm.node.settings import NodeSettings
from mesh_llm.runtime.bell import Bell
from mesh_llm.runtime.draining import drained


class Droppable(Protocol):
    """A model that this node runs: a supervisor's, or one over several nodes."""

    @property
    def model(self) -> ServedModel: ...

    async def drop(self, reason: str, until_unused: Callable[[], Awaitable[object]]) -> None: ...


class NodeVerbs:
    def __init__(
        self,
        settings: NodeSettings,
        models: Callable[[], Sequence[Droppable]],
        mesh: Mesh | None,
        gateway: Gateway,
        changes: Bell,
    ) -> None:
        """`changes` rings whenever the gateway has become more or less busy."""
        self._settings = settings
        self._models = models
        self._mesh = mesh
        self._gateway = gateway
        self._changes = changes

    async def invite(self, *, once: bool, ttl_s: int | None) -> str:
        return self._member().invite(ttl_s or self._settings.invite_ttl_s, once=once)

    async def revoke(self, text: str) -> None:
        self._member().revoke(text)

    async def kick(self, text: str) -> str:
        mesh = self._member()
        node = find_node(text, mesh.names())
        name = mesh.name_of(node)
        mesh.kick(node)
        return name

    async def drop(self, model: str) -> str:
        found = self._find(model)
        name = found.model.name
        busy = partial(self._gateway.busy_with, name)
        until_unused = partial(drained, busy, self._changes, DROP_SECONDS_MAX)
        await found.drop(f"{name} was dropped", until_unused)
        return name

    def _find(self, name: str) -> Droppable:
        """Raises ModelNotFound."""
        models = self._models()
        for each in models:
            if name.lower() in (known.lower() for known in (each.model.name, *each.model.aliases)):
                return each
        known = ", ".join(sorted(each.model.name for each in models)) or "none"
        raise ModelNotFound(f"This node runs no model `{name}`. It runs: {known}.")

    def _member(self) -> Mesh:
        if self._mesh is None:
            raise RequestRefused(
                "This node is in no mesh: start it with --model, --endpoint, --client or --join."
            )
        return self._mesh
