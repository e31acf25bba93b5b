"""`/v1/models`: what is served here and on other nodes, and how it is doing. One entry a name."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from mesh_llm.core.ids import NodeId, short
from mesh_llm.core.offers import CutOffer, ModelOffer, ServedOffer
from mesh_llm.core.serving import Condition, Failed, Loading, Ready, Restarting, Stopped, Waiting
from mesh_llm.gateway.json_values import Json

HERE = "here"


@dataclass(frozen=True, slots=True)
class Row:
    """One server of a model."""

    served: ServedOffer
    node: NodeId | None
    """None: this one."""
    node_name: str
    status: Json
    busy: int

    @property
    def ready(self) -> bool:
        return self.served.ready


def listing(rows: Sequence[Row]) -> Json:
    names = dict.fromkeys(row.served.offer.name for row in rows)
    return {"object": "list", "data": [describe(_named(rows, name)) for name in names]}


def describe(rows: Sequence[Row]) -> Json:
    """One model: the rows of its servers, this node's own first. What it is comes from the best of them: of
    those that are ready one that has all of it, as questions go."""
    best = min(rows, key=lambda row: (not row.ready, row.ready and _is_approximate(row)))
    return {**_facts(best.served.offer), **best.status, "served_by": [_server(row) for row in rows]}


def _named(rows: Iterable[Row], name: str) -> list[Row]:
    return [row for row in rows if row.served.offer.name == name]


def _facts(offer: ModelOffer) -> Json:
    return {
        "id": offer.name,
        "object": "model",
        "created": offer.created,
        "owned_by": "mesh-llm",
        "aliases": list(offer.aliases),
        "context_length": offer.context_length,
        "context_length_trained": offer.context_length_trained,
        "size": offer.bytes,
        "parameters": offer.parameters,
        "architecture": offer.architecture,
        "quantisation": offer.quantisation,
        "embedding_length": offer.embedding_length,
        "slots": offer.slots,
        "capabilities": list(offer.capabilities),
    } | _approximation(offer.cut)


def _is_approximate(row: Row) -> bool:
    cut = row.served.offer.cut
    return cut is not None and cut.is_approximate


def _approximation(cut: CutOffer | None) -> Json:
    """Nothing where the whole model answers."""
    return {"approximate": dict(cut.shown())} if cut is not None and cut.is_approximate else {}


def _server(row: Row) -> Json:
    return {
        "node": HERE if row.node is None else short(row.node),
        "name": row.node_name,
        "status": row.status["status"],
        "tokens_per_second": row.served.tokens_per_second,
        "busy": row.busy,
    } | _approximation(row.served.offer.cut)


def status_here(condition: Condition) -> Json:
    match condition:
        case Ready():
            return {"status": "ready"}
        case Loading(fraction):
            return {"status": "loading", "progress": round(fraction, 3)}
        case Restarting(reason, attempt, _):
            return {"status": "restarting", "reason": reason, "attempt": attempt}
        case Waiting(reason):
            return {"status": "waiting", "reason": reason}
        case Failed(reason):
            return {"status": "failed", "reason": reason}
        case Stopped():
            return {"status": "stopped"}


def status_elsewhere(served: ServedOffer) -> Json:
    return {"status": "ready" if served.ready else "loading"}
