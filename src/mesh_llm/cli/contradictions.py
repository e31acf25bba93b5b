"""Flags that are right alone and make no sense together."""

from argparse import Namespace
from collections.abc import Callable
from dataclasses import dataclass

from mesh_llm.core.errors import RequestRefused


@dataclass(frozen=True, slots=True)
class Contradiction:
    found: Callable[[Namespace], bool]
    message: str


def _with_client(flag: str, given: Callable[[Namespace], bool]) -> Contradiction:
    return Contradiction(
        lambda flags: flags.client and given(flags),
        f"--client serves nothing, so it takes no {flag}: leave out one of the two.",
    )


CONTRADICTIONS = (
    _with_client("--model", lambda flags: bool(flags.model)),
    _with_client("--endpoint", lambda flags: bool(flags.endpoint)),
    _with_client("--max-vram", lambda flags: flags.max_vram is not None),
    _with_client("--device", lambda flags: bool(flags.device)),
    _with_client("--ctx-size", lambda flags: flags.ctx_size is not None),
    Contradiction(
        lambda flags: (flags.split or flags.stages is not None) and not flags.model,
        "--split and --stages say how to run a model: name it with --model.",
    ),
    Contradiction(
        lambda flags: flags.split == "experts" and flags.stages is not None,
        "--split experts makes no stages, each node answers alone: leave out --stages, or write "
        "--split layers.",
    ),
    Contradiction(
        lambda flags: flags.moe_layout is not None and flags.split != "experts",
        "--moe-layout says which experts each node keeps with --split experts: give both, or none.",
    ),
    Contradiction(
        lambda flags: flags.moe_quality is not None and not flags.model,
        "--moe-quality says how good an approximate model must be: name the model with --model.",
    ),
    Contradiction(
        lambda flags: flags.moe_quality is not None and bool(flags.split or flags.stages is not None),
        "--moe-quality is for models of which --split and --stages do not say how to run them: leave out one "
        "or the other.",
    ),
    Contradiction(
        lambda flags: flags.ephemeral and not flags.client,
        "--ephemeral is for clients: a node that serves must be known again after a restart. "
        "Add --client, or leave out --ephemeral; for a second node on one machine give another --home.",
    ),
    Contradiction(
        lambda flags: flags.ephemeral and not flags.join,
        "--ephemeral belongs to no mesh yet at each start: give it an invite with --join TOKEN.",
    ),
    Contradiction(
        lambda flags: bool(flags.relay) and flags.mesh_relay == "none",
        "--mesh-relay none uses no relay, and --relay names one: leave out one of the two.",
    ),
)


def refuse_contradictions(flags: Namespace) -> None:
    """Raises RequestRefused for the first."""
    for contradiction in CONTRADICTIONS:
        if contradiction.found(flags):
            raise RequestRefused(contradiction.message)
