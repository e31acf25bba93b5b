"""A mixture of experts that this node serves as a cut: its headers, what it weighs, where its bytes are."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from mesh_llm.core.errors import RequestRefused
from mesh_llm.models.experts.detection import detect, expert_bytes
from mesh_llm.models.gguf.contents import Header
from mesh_llm.models.hub_model import HubModel
from mesh_llm.models.library import LocalModel
from mesh_llm.models.records import Records
from mesh_llm.models.stages.manifests import Manifests
from mesh_llm.models.stages.ranges import RangeSource
from mesh_llm.node.split_sources import headers_of, identity_of, parts_at_hub, parts_here
from mesh_llm.planner.expert_plan import Mixture
from mesh_llm.splits.messages import Part


@dataclass(frozen=True, slots=True)
class MixtureSource:
    name: str
    """The `model` of requests and answers."""
    aliases: tuple[str, ...]
    identity: str
    """As in `SplitSource`."""
    mixture: Mixture
    headers: Sequence[Header]
    """Of the whole model's files, in order."""
    parts: tuple[Part, ...]
    files: tuple[Path, ...] = ()
    """Where they lie whole on this disk; empty if they do not."""
    origin: RangeSource | None = None
    """Where they can be read that lie on no disk here."""


async def mixture_source(
    model: LocalModel | HubModel, manifests: Manifests, records: Records
) -> MixtureSource:
    """Raises RequestRefused where it is no mixture, or one that cannot be cut; ModelDamaged."""
    is_here = isinstance(model, LocalModel)
    headers = await headers_of(model.files) if is_here else model.headers
    mixture = _mixture(model, headers)  # before its files are read whole
    parts = await parts_here(model, manifests, records) if is_here else parts_at_hub(model)
    return MixtureSource(
        name=model.name,
        aliases=model.aliases,
        identity=identity_of(parts),
        mixture=mixture,
        headers=headers,
        parts=parts,
        files=model.files if is_here else (),
        origin=None if is_here else model.ranges,
    )


def _mixture(model: LocalModel | HubModel, headers: Sequence[Header]) -> Mixture:
    shape = detect(headers)
    if shape is None:
        raise RequestRefused(
            f"{model.name} is no mixture of experts, so --split experts cannot cut it: leave it out, or write"
            " --split layers.",
            parameter="split",
        )
    weights = expert_bytes(headers)
    return Mixture(model.facts, shape, weights.trunk, weights.each)
