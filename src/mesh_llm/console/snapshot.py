"""The status of a node as one frozen record, and that record as the JSON that consoles and scripts read.

The field names are the product's promise (`GET /api/status`); `models` and `machine` say more than it asks.
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from mesh_llm.core.ids import MeshId, NodeId
from mesh_llm.core.machine import Machine
from mesh_llm.core.offers import CutOffer, ServedOffer
from mesh_llm.core.quantities import GB
from mesh_llm.core.serving import (
    Condition,
    Failed,
    Loading,
    Ready,
    Restarting,
    ServedModel,
    Stopped,
    Waiting,
)
from mesh_llm.core.stages import StageHolding


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
    """`alive` or `suspect`: membership's own word. Others are not in the list."""
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


def as_json(snapshot: Snapshot, *, with_token: bool = False) -> dict[str, Any]:
    """The status as the API gives it. Sizes in GB are decimal."""
    ready = [model for model in snapshot.models if isinstance(model.condition, Ready)]
    primary = snapshot.models[0].served if snapshot.models else None
    return {
        "version": snapshot.version,
        **_mesh(snapshot.mesh, with_token=with_token),
        "node_status": _node_status(snapshot),
        "is_host": bool(ready),
        "llama_ready": bool(ready),
        "model_name": _primary_name(snapshot),
        "serving_models": [model.served.name for model in ready],
        "api_port": snapshot.api_port,
        "my_vram_gb": _gb(snapshot.memory_bytes),
        "model_size_gb": _gb(primary.bytes) if primary else 0.0,
        "mesh_models": _mesh_models(snapshot),
        "inflight_requests": snapshot.requests_in_flight,
        "waiting_requests": snapshot.requests_waiting,
        "nostr_discovery": False,
        "models": [_model(model) for model in snapshot.models],
        "machine": _machine(snapshot.machine),
    }


def _mesh(mesh: MeshStatus | None, *, with_token: bool) -> dict[str, Any]:
    return {
        "node_id": mesh and mesh.node_id,
        "node_name": mesh and mesh.node_name,
        "mesh_id": mesh and mesh.mesh_id,
        "is_client": mesh is not None and mesh.is_client,
        "token": mesh.token if mesh and with_token else None,
        "peers": [_peer(peer) for peer in mesh.peers] if mesh else [],
    }


def _peer(peer: PeerStatus) -> dict[str, Any]:
    ready = [served.offer.name for served in peer.served if served.ready]
    return {
        "id": peer.id,
        "name": peer.name,
        "role": "Client" if peer.is_client else "Host" if ready else "Worker",
        "health": peer.health,
        "version": peer.version,
        "models": [served.offer.name for served in peer.served],
        "serving": ready[0] if ready else None,
        "serving_models": ready,
        "tokens_per_second": {
            served.offer.name: round(served.tokens_per_second, 1)
            for served in peer.served
            if served.tokens_per_second > 0
        },
        "vram_gb": _gb(peer.memory_bytes),
        "inflight_requests": peer.busy,
        "rtt_ms": None if peer.round_trip_s is None else round(1000 * peer.round_trip_s, 1),
        "path": peer.path,
    } | _approximations(peer.served)


def _approximations(served: Sequence[ServedOffer]) -> dict[str, Any]:
    """By model; nothing where whole models answer."""
    cuts = {each.offer.name: each.offer.cut for each in served if each.offer.cut is not None}
    shown = {name: dict(cut.shown()) for name, cut in cuts.items() if cut.is_approximate}
    return {"approximate": shown} if shown else {}


def _primary_name(snapshot: Snapshot) -> str:
    if snapshot.models:
        return snapshot.models[0].served.name
    return "(client)" if snapshot.mesh and snapshot.mesh.is_client else "(idle)"


def _node_status(snapshot: Snapshot) -> str:
    conditions = [model.condition for model in snapshot.models]
    if not conditions:
        return "Client" if snapshot.mesh and snapshot.mesh.is_client else "Idle"
    if any(isinstance(condition, Ready) for condition in conditions):
        return "Serving"
    if any(isinstance(condition, Loading | Restarting | Waiting) for condition in conditions):
        return "Loading"
    if all(isinstance(condition, Stopped) for condition in conditions):
        return "Idle"
    return "Failed"


@dataclass(slots=True)
class _Known:
    """A model by its name, gathered from every node."""

    bytes: int = 0
    vision: bool = False
    warm_on: set[str] = field(default_factory=set[str])
    """Ids of nodes; empty for this one."""
    stages: tuple[StageHolding, ...] = ()

    def add(self, size: int, vision: bool, node: str, warm: bool) -> None:
        self.bytes = max(self.bytes, size)
        self.vision = self.vision or vision
        if warm:
            self.warm_on.add(node)


def _mesh_models(snapshot: Snapshot) -> list[dict[str, Any]]:
    """Every model known, by name: `warm` where some node answers for it now, else `cold`."""
    known: defaultdict[str, _Known] = defaultdict(_Known)
    for disk in snapshot.on_disk:
        known[disk.name].add(disk.bytes, disk.vision, "", warm=False)
    for model in snapshot.models:
        served, warm = model.served, isinstance(model.condition, Ready)
        known[served.name].add(served.bytes, served.vision, "", warm)
        known[served.name].stages = served.stages
    for peer in snapshot.mesh.peers if snapshot.mesh else ():
        for told in peer.served:
            offer = told.offer
            known[offer.name].add(offer.bytes, "vision" in offer.capabilities, peer.id, told.ready)
            known[offer.name].stages = known[offer.name].stages or offer.stages
    return [
        {
            "name": name,
            "status": "warm" if model.warm_on else "cold",
            "node_count": len(model.warm_on),
            "size_gb": _gb(model.bytes),
            "vision": model.vision,
            "stages": [_stage(stage) for stage in model.stages],
        }
        for name, model in sorted(known.items())
    ]


def _stage(stage: StageHolding) -> dict[str, Any]:
    return {
        "node": stage.node,
        "name": stage.node_name,
        "first_layer": stage.layers.first,
        "last_layer": stage.layers.end - 1,
        "is_head": stage.is_head,
    }


def _model(model: ModelStatus) -> dict[str, Any]:
    served = model.served
    return (
        {
            "name": served.name,
            "context_length": served.context_length,
            "kv_type": served.kv_type,
            "slots": served.slots,
            "size_bytes": served.bytes,
            "quantisation": served.facts.quantisation,
            "parameters": served.facts.parameters,
            "inflight_requests": model.busy,
            "tokens_per_second": round(model.tokens_per_second, 1),
        }
        | _condition(model.condition)
        | _approximation(served.cut)
    )


def _approximation(cut: CutOffer | None) -> dict[str, Any]:
    """Nothing where the whole model answers."""
    return {"approximate": dict(cut.shown())} if cut is not None and cut.is_approximate else {}


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
        case Waiting(reason):
            return {"condition": "waiting", "reason": reason}
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
