"""What the gateway asks of whoever serves a model here: an engine's supervisor, an external server's model.

`remote.py` is the same for other nodes.
"""

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
