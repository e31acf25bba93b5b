"""`mesh-llm status`: the mesh as the running node sees it, itself first; then every model of it."""

import json
from argparse import Namespace
from collections.abc import Iterable
from typing import Any

from mesh_llm import __version__
from mesh_llm.cli import tables
from mesh_llm.cli.arguments import home_of
from mesh_llm.cli.control import look
from mesh_llm.core.errors import RequestRefused
from mesh_llm.core.ids import SHORT_DIGITS

NODE_TITLES = (
    *("node", "id", "role", "health", "memory>", "round trip>", "busy>"),
    *("model", "state", "tokens/s>"),
)
MODEL_TITLES = ("model", "state", "nodes>", "size>")
STAGE_TITLES = ("split model", "layers>", "node", "id", "")
CUT_TITLES = ("approximate model", "node", "experts>", "perplexity>", "KL>", "same token>")

REASON_CHARACTERS_MAX = 60
"""Of a reason in the table."""

Fields = dict[str, Any]
Served = tuple[str, str, float]
"""Name, state, tokens a second (0 where unknown)."""


async def run(arguments: Namespace) -> int:
    status = await look(home_of(arguments))
    if arguments.json:
        print(json.dumps(status, indent=2))
        return 0
    if status["version"] != __version__:
        raise RequestRefused(
            f"The running node is version {status['version']}, this command {__version__}: restart the node, "
            "or read --json."
        )
    print(heading(status))
    tables.show(NODE_TITLES, node_rows(status))
    if status["mesh_models"]:
        print()
        tables.show(MODEL_TITLES, model_rows(status))
    if stages := list(stage_rows(status)):
        print()
        tables.show(STAGE_TITLES, stages)
    if cuts := list(cut_rows(status)):
        print()
        tables.show(CUT_TITLES, cuts)
    return 0


def heading(status: Fields) -> str:
    count = 1 + len(status["peers"])
    nodes = "1 node" if count == 1 else f"{count} nodes"
    mesh = f"mesh {status['mesh_id'][:SHORT_DIGITS]}" if status["mesh_id"] else "no mesh"
    return f"{mesh}, {nodes}, {status['inflight_requests']} answering, {status['waiting_requests']} waiting"


def node_rows(status: Fields) -> list[tuple[str, ...]]:
    """A line for each model of a node; what is the node's own stands on its first."""
    return [*_own_rows(status), *(row for peer in status["peers"] for row in _peer_rows(peer))]


def _own_rows(status: Fields) -> Iterable[tuple[str, ...]]:
    role = "client" if status["is_client"] else "host" if status["is_host"] else "worker"
    busy = status["inflight_requests"] + status["waiting_requests"]
    node = (
        f"{status['node_name'] or ''} (this node)".strip(),
        (status["node_id"] or "")[:SHORT_DIGITS],
        role,
        "alive",
        f"{status['my_vram_gb']:.1f} GB",
        "",
        str(busy),
    )
    models = [(model["name"], _state(model), model["tokens_per_second"]) for model in status["models"]]
    return _rows(node, models)


def _peer_rows(peer: Fields) -> Iterable[tuple[str, ...]]:
    relayed = " (relay)" if peer["path"] == "relay" else ""
    node = (
        peer["name"],
        peer["id"][:SHORT_DIGITS],
        peer["role"].lower(),
        peer["health"],
        f"{peer['vram_gb']:.1f} GB",
        "" if peer["rtt_ms"] is None else f"{peer['rtt_ms']:.1f} ms{relayed}",
        str(peer["inflight_requests"]),
    )
    ready, speeds = peer["serving_models"], peer["tokens_per_second"]
    models = [(m, "ready" if m in ready else "not ready", speeds.get(m, 0.0)) for m in peer["models"]]
    return _rows(node, models)


def _rows(node: tuple[str, ...], models: list[Served]) -> Iterable[tuple[str, ...]]:
    for place, (name, state, speed) in enumerate(models or [("", "", 0.0)]):
        yield (*(node if place == 0 else ("",) * len(node)), name, state, f"{speed:.1f}" if speed else "")


def _state(model: Fields) -> str:
    if model["condition"] == "loading":
        return f"loading {model['loaded']:.0%}"
    return f"{model['condition']}: {_short(model['reason'])}" if "reason" in model else model["condition"]


def _short(reason: str) -> str:
    """The log and --json have it whole."""
    return reason if len(reason) <= REASON_CHARACTERS_MAX else f"{reason[: REASON_CHARACTERS_MAX - 3]}..."


def model_rows(status: Fields) -> Iterable[tuple[str, ...]]:
    for model in status["mesh_models"]:
        size = f"{model['size_gb']:.1f} GB" if model["size_gb"] else ""
        yield (model["name"], model["status"], str(model["node_count"]), size)


def stage_rows(status: Fields) -> Iterable[tuple[str, ...]]:
    """Who runs which layers, in the order in which a token passes them."""
    for model in status["mesh_models"]:
        for place, stage in enumerate(model["stages"]):
            layers = f"{stage['first_layer']}-{stage['last_layer']}"
            head = "samples and answers" if stage["is_head"] else ""
            name = model["name"] if place == 0 else ""
            yield (name, layers, stage["name"], stage["node"][:SHORT_DIGITS], head)


def cut_rows(status: Fields) -> Iterable[tuple[str, ...]]:
    """Who answers with some of the experts only, and what that costs against the whole model."""
    for model in status["models"]:
        if "approximate" in model:
            yield (
                model["name"],
                f"{status['node_name'] or ''} (this node)".strip(),
                *_cut(model["approximate"]),
            )
    for peer in status["peers"]:
        for name, cut in peer.get("approximate", {}).items():
            yield (name, peer["name"], *_cut(cut))


def _cut(cut: Fields) -> tuple[str, ...]:
    kept = f"{cut['experts_kept']} of {cut['experts']}"
    if cut["perplexity_ratio"] is None:
        return (kept, "not measured", "", "")
    return (kept, f"{cut['perplexity_ratio']:.2f} x", f"{cut['kl']:.3f}", f"{cut['same_top']:.0%}")
