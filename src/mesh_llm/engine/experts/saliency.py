"""How much each expert of each layer adds, summed over tokens: REAP, the norm of weight x output.

Counterpart: `build_moe_ffn` of llama-graph.cpp, whose tensors it takes. In `ffn_moe_argsort-N` all experts
of a token stand in order of choice, the first of them were used (`ffn_moe_topk-N` is a view of it with its
row stride, so it cannot be read as it lies). In `ffn_moe_weighted-N` are the outputs of those used, in that
order.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from mesh_llm.core.errors import EngineFailed
from mesh_llm.engine.llama.watching import Computed

CHOICE = "ffn_moe_argsort"
OUTPUTS = frozenset({"ffn_moe_weighted"})
OUTPUTS_WEIGHTED_BEFORE = {"llama4": frozenset({"ffn_moe_down", "ffn_moe_down_scaled"})}
"""There `ffn_moe_weighted` is what goes in."""

Sums = npt.NDArray[np.float64]


class Saliency:
    """Of one model: `Watching` asks `is_wanted` and tells `see`; batches of `rows` tokens pass."""

    def __init__(self, architecture: str, layers: Sequence[int], experts: int) -> None:
        self._outputs = OUTPUTS_WEIGHTED_BEFORE.get(architecture, OUTPUTS)
        self._experts = experts
        self._layers = frozenset(layers)
        self._chosen: dict[int, npt.NDArray[np.int32]] = {}
        self._last: int | None = None
        self._seen: set[int] = set()
        self.rows = 0
        self.reap: dict[int, Sums] = {layer: np.zeros(experts) for layer in layers}
        self.uses: dict[int, npt.NDArray[np.int64]] = {layer: np.zeros(experts, np.int64) for layer in layers}
        self._fault: str | None = None

    def is_wanted(self, name: str) -> bool:
        kind, layer = _parted(name)
        return layer in self._layers and (kind == CHOICE or kind in self._outputs)

    def see(self, tensor: Computed) -> bool:
        """Whether what comes after is needed: not behind the last layer that has experts."""
        kind, layer = _parted(tensor.name)
        if kind == CHOICE:
            self._chosen[layer] = tensor.integers()
            return True
        self._add(layer, tensor.floats())
        return layer != self._last

    def begin(self, rows: int) -> None:
        """Before a batch of so many tokens."""
        self.rows = rows
        self._seen.clear()
        self._chosen.clear()

    def check(self) -> None:
        """After a batch. Raises EngineFailed where a layer that should have run did not, or not for all."""
        if self._fault is not None:
            raise EngineFailed(f"this model's experts cannot be measured: {self._fault}")
        ran = tuple(sorted(self._seen))
        expected = tuple(sorted(self._layers))[: len(ran)]
        if not ran or ran != expected or (self._last is not None and ran[-1] != self._last):
            raise EngineFailed(
                f"this model's experts cannot be measured: those of layers {list(ran)} were seen, expected "
                f"were {list(expected)}. Name an importance matrix of the model."
            )
        self._last = ran[-1]

    def measured(self) -> dict[str, Any]:
        """By layer that ran, as JSON takes it. Raises EngineFailed where the model computes no numbers."""
        ran = [layer for layer in sorted(self.reap) if self.uses[layer].any()]
        if not all(np.isfinite(self.reap[layer]).all() for layer in ran):
            raise EngineFailed("this model's experts cannot be measured: their outputs are no numbers")
        return {
            "reap": {str(layer): self.reap[layer].tolist() for layer in ran},
            "uses": {str(layer): self.uses[layer].tolist() for layer in ran},
        }

    def _add(self, layer: int, outputs: npt.NDArray[np.float32]) -> None:
        order = self._chosen.pop(layer, None)
        used, rest = (0, 1) if order is None else divmod(len(outputs), len(order))
        if order is None or rest or len(order) != self.rows or order.shape[1] != self._experts:
            self._fault = f"its layer {layer} shows other tensors than those of {self.rows} tokens"
            return
        ids = order[:, :used].ravel()
        norms = np.sqrt(np.einsum("ij,ij->i", outputs, outputs))
        self.reap[layer] += np.bincount(ids, norms, self._experts)
        self.uses[layer] += np.bincount(ids, minlength=self._experts)
        self._seen.add(layer)


def best_first(sums: Sequence[float]) -> tuple[int, ...]:
    """Experts, the largest sum first; of equal ones the first."""
    return tuple(sorted(range(len(sums)), key=lambda expert: -sums[expert]))


def _parted(name: str) -> tuple[str, int]:
    """`ffn_moe_weighted-3` as its kind and layer; -1 for none."""
    kind, _, layer = name.rpartition("-")
    return kind, int(layer) if layer.isdecimal() else -1
