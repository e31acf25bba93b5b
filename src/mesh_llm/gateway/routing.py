"""Which backend answers a request: decided from names and conditions alone."""

from collections.abc import Sequence

from mesh_llm.core.errors import EngineFailed, ModelNotFound, RequestRefused, Unavailable
from mesh_llm.core.serving import (
    Condition,
    Endpoint,
    Failed,
    Loading,
    Ready,
    Restarting,
    ServedModel,
    Stopped,
)
from mesh_llm.gateway.backend import Backend
from mesh_llm.gateway.offers import capabilities

AUTOMATIC = "auto"
LOADING_RETRY_AFTER_S = 2


def choose(backends: Sequence[Backend], requested: str | None, capability: str | None = None) -> Backend:
    """The backend for the request's `model`; without one, or with `auto`, the largest that can answer now.

    Raises ModelNotFound, with the known names, for any other.
    """
    if not backends:
        raise ModelNotFound("This node serves no model. Start it with `mesh-llm --model NAME`.")
    if requested is None or requested.strip().lower() in ("", AUTOMATIC):
        return max(backends, key=lambda backend: _preference(backend, capability))
    for fits in (_is_exactly, _is_like):
        for backend in backends:
            if fits(backend.model, requested.strip()):
                return backend
    known = ", ".join(sorted(backend.model.name for backend in backends))
    raise ModelNotFound(f"There is no model `{requested}` here. Known: {known}.")


def endpoint_of(model: ServedModel, condition: Condition) -> Endpoint:
    """Where to ask. Raises Unavailable while it may come up, EngineFailed when it will not."""
    match condition:
        case Ready(endpoint):
            return endpoint
        case Loading(fraction):
            raise Unavailable(
                f"{model.name} is still loading ({fraction:.0%}). Try again in a moment.",
                retry_after_s=LOADING_RETRY_AFTER_S,
            )
        case Restarting(reason, attempt, retry_after_s):
            raise Unavailable(
                f"{model.name} is restarting (attempt {attempt}) after its engine stopped: {reason}",
                retry_after_s=max(1, retry_after_s),
            )
        case Failed(reason):
            raise EngineFailed(f"{model.name} could not be kept running: {reason}")
        case Stopped():
            raise Unavailable(
                f"{model.name} has been stopped. Use another model, or start it again.",
                retry_after_s=LOADING_RETRY_AFTER_S,
            )


def require(model: ServedModel, capability: str | None) -> None:
    """Raises RequestRefused where the model cannot do what the route is for."""
    able = capabilities(model)
    if capability is None or capability in able:
        return
    cure = "Name another model."
    if capability == "embeddings" and "chat" in able:
        cure = "Memory was too tight for them: free some, or start the node with a smaller --ctx-size."
    raise RequestRefused(
        f"{model.name} does not do {capability}, only {', '.join(able)}. {cure}",
        code="unsupported_model",
        parameter="model",
    )


def _is_exactly(model: ServedModel, requested: str) -> bool:
    return requested == model.name or requested in model.aliases


def _is_like(model: ServedModel, requested: str) -> bool:
    return requested.lower() in (name.lower() for name in (model.name, *model.aliases))


def _preference(backend: Backend, capability: str | None) -> tuple[int, bool, int, str]:
    """The model's name settles ties, so that the same question always goes to the same model."""
    model = backend.model
    match backend.condition:
        case Ready():
            readiness = 2
        case Loading() | Restarting():
            readiness = 1
        case Failed() | Stopped():
            readiness = 0
    can = capability is None or capability in capabilities(model)
    return (readiness, can, model.bytes, model.name)
