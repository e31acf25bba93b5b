"""Tensors read out of a graph while it is computed, whatever they are. Counterparts: the scheduler's eval
callback, which asks about each node, and once more, at once, when a wanted one is computed
(`ggml_backend_sched_compute_splits` of ggml-backend.cpp).

For measurements over batches of hundreds of rows, where a question in Python costs nothing beside a layer.
`residual.py` is for steps of one token.
"""

from collections.abc import Callable
from ctypes import c_void_p
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from mesh_llm.engine.llama import declarations as declared
from mesh_llm.engine.llama.library import Library

Bytes = npt.NDArray[np.uint8]


@dataclass(slots=True)
class Scratch:
    """Memory that one tensor after another is copied to: fresh pages would cost as much as the copy."""

    bytes: Bytes = field(default_factory=lambda: np.empty(0, np.uint8))

    def of(self, size: int) -> Bytes:
        if size > len(self.bytes):
            self.bytes = np.empty(size, np.uint8)
        return self.bytes[:size]


@dataclass(frozen=True, slots=True)
class Computed:
    """A tensor that is computed and contiguous, of numbers of four bytes. Gone when `seen` returns."""

    name: str
    library: Library
    address: int
    scratch: Scratch

    def floats(self) -> npt.NDArray[np.float32]:
        """(rows, width), all slower dimensions in one; a view that the next tensor overwrites."""
        return self._read().view(np.float32).reshape(self._rows(), -1)

    def integers(self) -> npt.NDArray[np.int32]:
        """(rows, width), a copy."""
        return self._read().view(np.int32).reshape(self._rows(), -1).copy()

    def _rows(self) -> int:
        rows: int = self.library.ggml_nrows(self.address)
        return rows

    def _read(self) -> npt.NDArray[Any]:
        size: int = self.library.ggml_nbytes(self.address)
        buffer = self.scratch.of(size)
        self.library.ggml_backend_tensor_get(self.address, c_void_p(buffer.ctypes.data), 0, size)
        return buffer


class Watching:
    """Give it to one context, and keep it as long."""

    def __init__(
        self, library: Library, is_wanted: Callable[[str], bool], seen: Callable[[Computed], bool]
    ) -> None:
        """`is_wanted` is asked by name; `seen` gets what was wanted, and says whether the graph goes on: no
        leaves out what comes after, on the same device. Neither may raise: llama.cpp cannot be left so."""
        self._library = library
        self._is_wanted = is_wanted
        self._seen = seen
        self._wanted: int | None = None
        self._scratch = Scratch()
        self.callback = declared.EvalCallback(self._answer)

    def _answer(self, tensor: int) -> bool:
        is_computed = tensor == self._wanted
        name: str = self._library.ggml_get_name(tensor).decode("utf-8", "replace")
        if is_computed:
            self._wanted = None
            return self._seen(Computed(name, self._library, tensor, self._scratch))
        is_wanted = self._is_wanted(name)
        self._wanted = tensor if is_wanted else None
        return is_wanted
