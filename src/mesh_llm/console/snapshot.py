"""The status of a node as one frozen record, and that record as the JSON that consoles and scripts read.

The field names are the product's promise (`GET /api/status`); `models` and `machine` say more than it asks.
"""

from dataclasses import dataclass
from typing import Any, Literal

from mesh_llm.core.ids import MeshId, NodeId
from mesh_llm.core.machine import Machine
from mesh_llm.core.offers import ServedOffer
from mesh_llm.core.quantities import GB
from mesh_llm.core.serving import Condition, Failed, Loading, Ready, Restarting, ServedModel, Stopped


@dataclass(frozen=True, slots=True)
class ModelStatus:
    served: ServedModel
    condition: Condition
    busy: int = 0
    """Requests that are being answered or wait."""
    tokens_per_second: float = 0.0
    """Of one answer, measured lately; 0 before the first."""


@dataclass(frozen=True, slots=True)
class DiskModel:
    name: str
    bytes: int
    vision: bool


@dataclass(frozen=True, slots=True)
class PeerStatus:
    """Another member, as this node sees it now."""

    id: NodeId
    name: str
    """As it calls itself; for people, and not unique."""
    is_client: bool
    health: str
    """`alive`, `suspected`, `leaving`: membership's own word."""
    version: str
    memory_bytes: int
    """What models may use there."""
    served: tuple[ServedOffer, ...]
    busy: int
    """Requests that it is answering or has waiting, as it said last."""
    round_trip_s: float | None
    """None before the first measurement."""
    path: Literal["direct", "relay"] | None
    """How it is reached; None where no connection is open."""


@dataclass(frozen=True, slots=True)
class MeshStatus:
    """This node among others."""

    node_id: NodeId
    node_name: str
    mesh_id: MeshId | None
    """None until it belongs to one."""
    is_client: bool
    token: str | None
    """An invite that is valid now: shown only to who holds the control key."""
    peers: tuple[PeerStatus, ...]


@dataclass(frozen=True, slots=True)
class Snapshot:
    version: str
    api_port: int | None
    """None where the node serves no API (started without a model)."""
    machine: Machine
    memory_bytes: int
    """What models may use here."""
    models: tuple[ModelStatus, ...]
    on_disk: tuple[DiskModel, ...]
    requests_in_flight: int
    requests_waiting: int
    mesh: MeshStatus | None = None
    """None while the node has no identity yet."""


def as_json(snapshot: Snapshot) -> dict[str, Any]:
    """The status as the API gives it. Sizes in GB are decimal."""
    ready = [model for model in snapshot.models if isinstance(model.condition, Ready)]
    primary = snapshot.models[0].served if snapshot.models else None
    return {
        "version": snapshot.version,
        "node_id": None,  # a node alone has no identity yet
        "token": None,
        "node_status": _node_status(snapshot),
        "is_host": bool(ready),
        "is_client": False,
        "llama_ready": bool(ready),
        "model_name": primary.name if primary else "(idle)",
        "serving_models": [model.served.name for model in ready],
        "api_port": snapshot.api_port,
        "my_vram_gb": _gb(snapshot.memory_bytes),
        "model_size_gb": _gb(primary.bytes) if primary else 0.0,
        "peers": [],
        "mesh_models": _mesh_models(snapshot),
        "inflight_requests": snapshot.requests_in_flight,
        "waiting_requests": snapshot.requests_waiting,
        "nostr_discovery": False,
        "models": [_model(model) for model in snapshot.models],
        "machine": _machine(snapshot.machine),
    }


def _node_status(snapshot: Snapshot) -> str:
    conditions = [model.condition for model in snapshot.models]
    if not conditions:
        return "Idle"
    if any(isinstance(condition, Ready) for condition in conditions):
        return "Serving"
    if any(isinstance(condition, Loading | Restarting) for condition in conditions):
        return "Loading"
    return "Failed"


def _mesh_models(snapshot: Snapshot) -> list[dict[str, Any]]:
    """Every model known here, by name: `warm` where it answers now, `cold` where it only lies on disk."""
    known = {disk.name: (disk.bytes, disk.vision, "cold") for disk in snapshot.on_disk}
    for model in snapshot.models:
        warmth = "warm" if isinstance(model.condition, Ready) else "cold"
        known[model.served.name] = (model.served.bytes, model.served.vision, warmth)
    return [
        {
            "name": name,
            "status": warmth,
            "node_count": int(warmth == "warm"),
            "size_gb": _gb(size),
            "vision": vision,
        }
        for name, (size, vision, warmth) in sorted(known.items())
    ]


def _model(model: ModelStatus) -> dict[str, Any]:
    served = model.served
    return {
        "name": served.name,
        "context_length": served.context_length,
        "kv_type": served.kv_type,
        "slots": served.slots,
        "size_bytes": served.bytes,
        "quantisation": served.facts.quantisation,
        "parameters": served.facts.parameters,
    } | _condition(model.condition)


def _condition(condition: Condition) -> dict[str, Any]:
    match condition:
        case Loading(fraction):
            return {"condition": "loading", "loaded": round(fraction, 3)}
        case Ready():
            return {"condition": "ready"}
        case Restarting(reason, attempt, retry_after_s):
            return {
                "condition": "restarting",
                "reason": reason,
                "attempt": attempt,
                "retry_after_s": retry_after_s,
            }
        case Failed(reason):
            return {"condition": "failed", "reason": reason}
        case Stopped():
            return {"condition": "stopped"}


def _machine(machine: Machine) -> dict[str, Any]:
    return {
        "cores": machine.cores,
        "memory_bytes": machine.memory_bytes,
        "memory_bytes_available": machine.memory_bytes_available,
        "devices": [
            {
                "name": device.name,
                "description": device.description,
                "memory_bytes": device.memory_bytes,
                "memory_bytes_free": device.memory_bytes_free,
            }
            for device in machine.devices
        ],
    }


def _gb(count: int) -> float:
    return round(count / GB, 3)
