"""What a cut of experts holds and where each of its bytes comes from.

Pure: headers and the experts to keep in, pieces out. Counterparts: `stages/composition.py` puts these
together, `rules.py` says which tensors have rows of experts, `load_hparams` in llama.cpp reads the keys. The
file is an ordinary GGUF of one part with fewer experts; nothing is quantised anew.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from mesh_llm.core.errors import RequestRefused
from mesh_llm.core.experts import ExpertShape, Kept
from mesh_llm.models.experts.detection import detect, expert_layer, expert_widths
from mesh_llm.models.gguf.contents import Header
from mesh_llm.models.gguf.keys import Keys
from mesh_llm.models.gguf.tensors import TensorInfo
from mesh_llm.models.stages.composition import FileLayout, NewValue, Stretch, Taken, composed
from mesh_llm.models.stages.stage_keys import DROPPED

OWN_KEYS = "mesh_llm.cut."
"""How the keys begin by which a cut says what it was made of."""


@dataclass(frozen=True, slots=True)
class Origin:
    """What a cut was made of, as its own header says it."""

    identity: str
    """Of the model's files."""
    ranking_digest: str
    """Of the ranking that chose its experts."""


def cut_layout(parts: Sequence[Header], kept: Kept, origin: Origin | None = None) -> FileLayout:
    """The file of one cut. Raises RequestRefused where the model, or this choice of it, cannot be cut;
    ModelDamaged."""
    shape = detect(parts)
    keys = Keys(parts[0].name, parts[0].metadata)
    if shape is None:
        raise RequestRefused(
            f"{keys.name} is no mixture of experts: name one that is, or split it by layers.",
            parameter="model",
        )
    _check_kept(keys, shape, kept)
    dropped = frozenset(key for key in parts[0].metadata if key.startswith((*DROPPED, OWN_KEYS)))
    changed = _changed(parts, shape, kept) | _own_keys(origin, shape, kept)
    return composed(parts, _taken(parts, kept), dropped - changed.keys(), changed)


def _check_kept(keys: Keys, shape: ExpertShape, kept: Kept) -> None:
    missing = sorted(set(shape.layers) - kept.by_layer.keys())
    if missing:
        raise RequestRefused(
            f"{keys.name} has experts in layer {missing[0]}, of which none are named: rank its experts again."
        )
    if not shape.allows(kept.count):
        step = f", a multiple of {shape.step}" if shape.step > 1 else ""
        raise RequestRefused(
            f"{kept.count} experts of {keys.name} are no cut: keep {shape.fewest_possible} to "
            f"{shape.experts}{step}."
        )
    for layer in shape.layers:
        _check_layer(keys, shape, layer, kept.by_layer[layer])


def _check_layer(keys: Keys, shape: ExpertShape, layer: int, ids: Sequence[int]) -> None:
    if ids[-1] >= shape.experts:
        raise RequestRefused(
            f"{keys.name} has no expert {ids[-1]} in layer {layer}, only 0 to {shape.experts - 1}: rank its "
            "experts again."
        )
    size = shape.experts // shape.groups
    of_each = [sum(each // size == group for each in ids) for group in range(shape.groups)]
    if len(set(of_each)) > 1:
        raise RequestRefused(
            f"{keys.name} chooses its experts by {shape.groups} groups: keep equally many of each, not "
            f"{of_each} in layer {layer}."
        )


def _changed(parts: Sequence[Header], shape: ExpertShape, kept: Kept) -> dict[str, NewValue]:
    """Fewer experts, and what llama.cpp would otherwise make of their number."""
    keys = Keys(parts[0].name, parts[0].metadata)
    changed: dict[str, NewValue] = {
        f"{keys.architecture}.expert_count": kept.count,
        f"{keys.architecture}.expert_used_count": _used(keys, parts[0], shape, kept),
    }
    if not keys.number("expert_feed_forward_length"):
        # Several graphs take n_ff / n_expert_used for it, which must not change with what is used.
        changed[f"{keys.architecture}.expert_feed_forward_length"] = _widths(parts, keys)
    return changed


def _used(keys: Keys, first: Header, shape: ExpertShape, kept: Kept) -> NewValue:
    """No more than there are to choose from; where layers differ, each by itself."""
    limit = kept.count // shape.groups * shape.groups_used
    value = first.metadata[f"{keys.architecture}.expert_used_count"]
    if isinstance(value, tuple):
        return tuple(min(number, limit) for number in keys.per_layer("expert_used_count", len(value)))
    return min(keys.number("expert_used_count"), limit)


def _widths(parts: Sequence[Header], keys: Keys) -> NewValue:
    """Neurons of one expert. One number, or one a layer if they differ."""
    widths = expert_widths(parts)
    if len(set(widths.values())) == 1:
        return next(iter(widths.values()))
    return tuple(widths.get(layer, 0) for layer in range(keys.required_number("block_count")))


def _own_keys(origin: Origin | None, shape: ExpertShape, kept: Kept) -> dict[str, NewValue]:
    if origin is None:
        return {}
    return {
        f"{OWN_KEYS}model": origin.identity,
        f"{OWN_KEYS}ranking": origin.ranking_digest,
        f"{OWN_KEYS}kept": kept.count,
        f"{OWN_KEYS}experts": shape.experts,
        f"{OWN_KEYS}choice": kept.digest,
    }


def _taken(parts: Sequence[Header], kept: Kept) -> Iterator[Taken]:
    for number, part in enumerate(parts):
        for tensor in part.tensors:
            start = part.data_offset + tensor.offset
            layer = expert_layer(tensor.name)
            if layer is None:
                yield Taken(tensor, number, (Stretch(start, tensor.bytes),))
            else:
                yield _rows(tensor, number, start, kept.by_layer[layer])


def _rows(tensor: TensorInfo, part: int, start: int, ids: Sequence[int]) -> Taken:
    """Some experts' rows. The expert axis is the slowest, so each row is whole blocks of any quantisation."""
    *row, experts = tensor.dimensions
    size = tensor.bytes // experts
    stretches = tuple(Stretch(start + expert * size, size) for expert in ids)
    return Taken(replace(tensor, dimensions=(*row, len(ids)), bytes=size * len(ids)), part, stretches)
