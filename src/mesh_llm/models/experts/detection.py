"""Whether a model is a mixture of experts that can be cut, and what its cuts weigh.

Pure: headers in, numbers out. Counterparts: `rules.py` has the names, `layout.py`
makes the cut. How good a cut is, is not known here.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from mesh_llm.core.errors import ModelDamaged, RequestRefused
from mesh_llm.core.experts import ExpertShape
from mesh_llm.models.experts.rules import (
    EXPERTS_MAX,
    IN_EACH_LAYER,
    LEADING_DENSE_UNREAD,
    OF_EACH_EXPERT,
    swells,
    why_not_cut,
)
from mesh_llm.models.gguf.contents import Header
from mesh_llm.models.gguf.keys import Keys
from mesh_llm.models.gguf.model_facts import check_parts
from mesh_llm.models.gguf.stageable import layer_of
from mesh_llm.models.gguf.tensors import TensorInfo


class ExpertBytes(NamedTuple):
    """A cut of n experts has `trunk + n * each` bytes of weights."""

    trunk: int
    """Of the tensors that every cut has whole."""
    each: int
    """Of one expert in all layers together, its rows of the router with it."""


def detect(parts: Sequence[Header]) -> ExpertShape | None:
    """The mixture that this model is; None where it is none.

    Raises RequestRefused where it is one that cannot be cut, with the reason; ModelDamaged where its header
    and its tensors contradict each other.
    """
    check_parts(parts)
    keys = Keys(parts[0].name, parts[0].metadata)
    experts = _experts(keys)
    layers = sorted({layer for layer, tensor in expert_tensors(parts) if _is_weight(tensor)})
    if experts < 2 and layers:
        raise keys.damaged(f"it has tensors of experts in {len(layers)} layers, its header counts {experts}")
    if experts < 2:
        return None
    _check_tensors(parts, keys)
    if not layers:
        return None
    _check_layers(parts, keys, layers)
    groups, groups_used = _groups(keys, experts)
    used = keys.number("expert_used_count")
    if not 0 < used <= experts // groups * groups_used:
        of_groups = f" in {groups_used} of {groups} groups" if groups > 1 else ""
        raise keys.damaged(f"it uses {used} of {experts} experts{of_groups}")
    return ExpertShape(experts, used, tuple(layers), groups, groups_used)


def expert_bytes(parts: Sequence[Header]) -> ExpertBytes:
    """Of a model that `detect` knows a shape of. Raises what `detect` raises."""
    shape = detect(parts)
    all_bytes = sum(part.weights_bytes for part in parts)
    if shape is None:
        return ExpertBytes(all_bytes, 0)
    of_experts = sum(tensor.bytes for _, tensor in expert_tensors(parts))
    return ExpertBytes(all_bytes - of_experts, of_experts // shape.experts)


def notes(parts: Sequence[Header]) -> tuple[str, ...]:
    """What people should know of any cut of this model; mostly nothing."""
    keys = Keys(parts[0].name, parts[0].metadata)
    if not swells(keys):
        return ()
    return (
        f"the router of `{keys.architecture}` shares weights out among all experts: those that a cut keeps "
        "weigh more than in the full model, so keep most of them, and trust its measured quality only",
    )


def expert_widths(parts: Sequence[Header]) -> Mapping[int, int]:
    """Neurons of one expert, by layer: what its `down` matrix takes in."""
    return {
        layer: tensor.dimensions[0]
        for layer, tensor in expert_tensors(parts)
        if tensor.name.endswith("ffn_down_exps.weight")
    }


def expert_tensors(parts: Sequence[Header]) -> Iterator[tuple[int, TensorInfo]]:
    """Those of which a cut has some rows, each with its layer."""
    for part in parts:
        for tensor in part.tensors:
            layer = expert_layer(tensor.name)
            if layer is not None:
                yield layer, tensor


def expert_layer(tensor: str) -> int | None:
    """The layer whose experts have rows in this tensor; None where they have none."""
    layer = layer_of(tensor)
    return layer if layer is not None and OF_EACH_EXPERT.fullmatch(_rest(tensor)) else None


def _rest(tensor: str) -> str:
    return tensor.split(".", 2)[2]


def _is_weight(tensor: TensorInfo) -> bool:
    return tensor.name.endswith("_exps.weight")


def _experts(keys: Keys) -> int:
    """Of each layer."""
    if keys.is_array("expert_count"):
        raise _refused(keys, "its header gives each layer a number of experts of its own")
    experts = keys.number("expert_count")
    if experts > EXPERTS_MAX:
        raise keys.damaged(f"it has {experts} experts, the engine takes {EXPERTS_MAX} at most")
    return experts


def _groups(keys: Keys, experts: int) -> tuple[int, int]:
    """As llama.cpp checks them in `load_hparams`."""
    groups, used = keys.number("expert_group_count"), keys.number("expert_group_used_count")
    if groups <= 1:
        return 1, 1
    if groups >= experts or experts % groups or not 0 < used < groups:
        raise keys.damaged(f"it uses {used} of {groups} groups of its {experts} experts")
    return groups, used


def _check_tensors(parts: Sequence[Header], keys: Keys) -> None:
    """Raises RequestRefused where experts are counted in a way that is not cut, ModelDamaged."""
    for tensor in (tensor for part in parts for tensor in part.tensors):
        if layer_of(tensor.name) is None:
            continue
        why = why_not_cut(tensor.name, _rest(tensor.name))
        if why is not None:
            raise _refused(keys, why)
    for _, tensor in expert_tensors(parts):
        _check_rows(tensor, keys)


def _check_layers(parts: Sequence[Header], keys: Keys, layers: Sequence[int]) -> None:
    """Raises ModelDamaged where experts are in a layer that there is not, or not all of what each has."""
    blocks, dense = keys.required_number("block_count"), keys.number("leading_dense_block_count")
    if layers[-1] >= blocks:
        raise keys.damaged(f"it has experts in layer {layers[-1]}, its header counts {blocks} layers")
    if layers[0] < dense and keys.architecture not in LEADING_DENSE_UNREAD:
        raise keys.damaged(
            f"it has experts in layer {layers[0]}, its header says that the first {dense} layers have none"
        )
    names = {tensor.name for _, tensor in expert_tensors(parts)}
    for layer in sorted({layer for layer, _ in expert_tensors(parts)}):
        for rest in IN_EACH_LAYER:
            if f"blk.{layer}.{rest}" not in names:
                raise keys.damaged(f"layer {layer} has some tensors of experts and lacks `{rest}`")


def _check_rows(tensor: TensorInfo, keys: Keys) -> None:
    experts = keys.number("expert_count")
    rows = tensor.dimensions[-1] if tensor.dimensions else 0
    if rows != experts:
        raise ModelDamaged(
            f"{keys.name}: `{tensor.name}` has rows of {rows} experts, the model has {experts}. Fetch the "
            "model again."
        )
    if tensor.bytes % experts:
        raise _refused(keys, f"experts share blocks of `{tensor.name}`")


def _refused(keys: Keys, why: str) -> RequestRefused:
    return RequestRefused(
        f"{keys.name} (architecture `{keys.architecture}`) cannot be cut by experts: {why}. Run it on a node "
        "that can hold all of it, or split it by layers.",
        code="cannot_be_cut",
        parameter="model",
    )
