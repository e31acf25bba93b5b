"""`/v1/models`: what is served here, and how it is doing."""

from collections.abc import Sequence

from mesh_llm.core.serving import Condition, Failed, Loading, Ready, Restarting, Stopped
from mesh_llm.gateway.backend import Backend
from mesh_llm.gateway.json_values import Json
from mesh_llm.gateway.offers import capabilities


def listing(backends: Sequence[Backend]) -> Json:
    return {"object": "list", "data": [describe(backend) for backend in backends]}


def describe(backend: Backend) -> Json:
    model = backend.model
    facts = model.facts
    return {
        "id": model.name,
        "object": "model",
        "created": model.created,
        "owned_by": "mesh-llm",
        "aliases": list(model.aliases),
        "context_length": model.context_length,
        "context_length_trained": facts.context_length,
        "size": model.bytes,
        "parameters": facts.parameters,
        "architecture": facts.architecture,
        "quantisation": facts.quantisation,
        "embedding_length": facts.embedding_length,
        "slots": model.slots,
        "capabilities": list(capabilities(model)),
        **_status(backend.condition),
    }


def _status(condition: Condition) -> Json:
    match condition:
        case Ready():
            return {"status": "ready"}
        case Loading(fraction):
            return {"status": "loading", "progress": round(fraction, 3)}
        case Restarting(reason, attempt, _):
            return {"status": "restarting", "reason": reason, "attempt": attempt}
        case Failed(reason):
            return {"status": "failed", "reason": reason}
        case Stopped():
            return {"status": "stopped"}
