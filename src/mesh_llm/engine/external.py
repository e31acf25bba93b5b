"""An existing OpenAI-compatible server (vLLM, Ollama, TGI, llama-server, ...) whose models this node serves.

Looks at its list of models now and then; each is a backend to the gateway. Starts and stops nothing.
"""

from collections.abc import Callable

from mesh_llm.core.serving import Condition, Endpoint, ServedModel
from mesh_llm.runtime.clock import Clock


def parse_endpoint(url: str, default_key: str | None) -> Endpoint:
    """From `--endpoint`: with or without `/v1`, with or without a key before the host (`https://KEY@host`).

    Raises RequestRefused with the cure; never repeats a key.
    """
    raise NotImplementedError


class ExternalModel:
    """One model of an external server: a backend."""

    model: ServedModel
    condition: Condition

    async def explain_failure(self) -> str:
        raise NotImplementedError


class ExternalServer:
    def __init__(self, endpoint: Endpoint, clock: Clock, on_change: Callable[[], None]) -> None:
        """`on_change` is called when `backends` or a condition among them has become another."""

    @property
    def backends(self) -> tuple[ExternalModel, ...]:
        """Its models as seen last; empty before the first answer. Those that vanish from its list leave."""
        return ()

    async def run(self) -> None:
        """Until cancelled. A server that does not answer is a warning and is asked again."""
