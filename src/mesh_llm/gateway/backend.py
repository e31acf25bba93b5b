"""What the gateway asks of whoever serves a model: a local engine's supervisor, later another node."""

from typing import Protocol

from mesh_llm.core.serving import Condition, ServedModel


class Backend(Protocol):
    """Its engine answers under `model.name`: plain streams pass through here unread."""

    @property
    def model(self) -> ServedModel: ...

    @property
    def condition(self) -> Condition: ...

    async def explain_failure(self) -> str:
        """Why the engine broke off a request: waits, bounded, for its end and returns its last words."""
        ...
