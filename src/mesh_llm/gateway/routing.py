"""Which model a request means, and whether it can do what is asked: from names and conditions alone."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum

from mesh_llm.core.errors import EngineFailed, ModelNotFound, RequestRefused, Unavailable
from mesh_llm.core.offers import ModelOffer, ServedOffer
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
from mesh_llm.gateway.backend import Backend
from mesh_llm.gateway.offers import offer_of

AUTOMATIC = "auto"
LOADING_RETRY_AFTER_S = 2
WAITING_RETRY_AFTER_S = 10
NAMES_TOLD_MAX = 50
"""In the refusal of an unknown one; `/v1/models` has them all."""


class Readiness(IntEnum):
    DOWN = 0
    COMING = 1
    READY = 2


@dataclass(frozen=True, slots=True)
class Standing:
    """A model somewhere in the mesh, and whether it can be asked."""

    offer: ModelOffer
    readiness: Readiness


def standing_here(backend: Backend) -> Standing:
    match backend.condition:
        case Ready():
            readiness = Readiness.READY
        case Loading() | Restarting() | Waiting():
            readiness = Readiness.COMING
        case Failed() | Stopped():
            readiness = Readiness.DOWN
    return Standing(offer_of(backend.model), readiness)


def standing_elsewhere(served: ServedOffer) -> Standing:
    return Standing(served.offer, Readiness.READY if served.ready else Readiness.COMING)


def choose(known: Sequence[Standing], requested: str | None, capability: str | None = None) -> ModelOffer:
    """The request's `model`; without one, or with `auto`, the largest that can answer now.

    Raises ModelNotFound, with the known names, for any other.
    """
    if not known:
        raise ModelNotFound("No model is served here. Start a node with `mesh-llm --model NAME`.")

    def preference(standing: Standing) -> tuple[int, bool, int, str]:
        """The model's name settles ties, so that the same question always goes to the same model."""
        offer = standing.offer
        return (standing.readiness, can(offer, capability), offer.bytes, offer.name)

    if requested is None or requested.strip().lower() in ("", AUTOMATIC):
        return max(known, key=preference).offer
    for fits in (_is_name, _is_alias, _is_like):
        fitting = [standing for standing in known if fits(standing.offer, requested.strip())]
        if fitting:
            return max(fitting, key=preference).offer
    names = sorted({standing.offer.name for standing in known})
    told = ", ".join(names[:NAMES_TOLD_MAX]) + (", ..." if len(names) > NAMES_TOLD_MAX else "")
    raise ModelNotFound(f"There is no model `{requested}` here. Known: {told}.")


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
        case Waiting(reason):
            raise Unavailable(f"{model.name} cannot run yet: {reason}", retry_after_s=WAITING_RETRY_AFTER_S)
        case Failed(reason):
            raise EngineFailed(f"{model.name} could not be kept running: {reason}")
        case Stopped():
            raise Unavailable(
                f"{model.name} has been stopped. Use another model, or start it again.",
                retry_after_s=LOADING_RETRY_AFTER_S,
            )


def can(offer: ModelOffer, capability: str | None) -> bool:
    return capability is None or capability in offer.capabilities


def require(offer: ModelOffer, capability: str | None) -> None:
    """Raises RequestRefused where the model cannot do what the route is for."""
    if can(offer, capability):
        return
    raise RequestRefused(
        f"{offer.name} does not do {capability}, only {', '.join(offer.capabilities)}. "
        f"{_cure(offer, capability)}",
        code="unsupported_model",
        parameter="model",
    )


def _cure(offer: ModelOffer, capability: str | None) -> str:
    if offer.stages and capability in ("embeddings", "rerank"):
        return f"It is split over {len(offer.stages)} stages, which give text only. Name another model."
    if capability == "embeddings" and "chat" in offer.capabilities:
        return "Memory was too tight for them: free some, or start the node with a smaller --ctx-size."
    return "Name another model."


def _is_name(offer: ModelOffer, requested: str) -> bool:
    return requested == offer.name


def _is_alias(offer: ModelOffer, requested: str) -> bool:
    return requested in offer.aliases


def _is_like(offer: ModelOffer, requested: str) -> bool:
    return requested.lower() in (name.lower() for name in (offer.name, *offer.aliases))
