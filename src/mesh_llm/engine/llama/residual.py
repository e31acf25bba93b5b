"""The residual stream as it leaves a named tensor: what a stage passes on.

llama.cpp's scheduler asks its eval callback about each node of the graph, in order: "do you want this one?";
after the wanted node is computed it calls again (`ggml_backend_sched_compute_splits` of ggml-backend.cpp).
Answering no then skips the rest of the graph, for a stage its final norm and output head.

Some thirty questions a layer come in each step. Comparing names costs 0.5 us each, comparing addresses 0.1,
and a graph for as many rows lies where the last one did. So an address is learned by its name, held against
the name once more when its node is computed, and forgotten where it was wrong (`has_missed`).
"""

import ctypes

import numpy as np
import numpy.typing as npt

from mesh_llm.core.errors import EngineFailed
from mesh_llm.engine.llama import declarations as declared
from mesh_llm.engine.llama.library import Library

Floats = npt.NDArray[np.float32]


class Residual:
    def __init__(self, library: Library, name: str, rows_max: int, width: int) -> None:
        self._library = library
        self._name = name.encode()
        self._buffer: Floats = np.empty((rows_max, width), np.float32)
        self._bytes_taken = 0
        self._count = 0
        self._learned: dict[int, int] = {}
        """Address of the tensor in graphs for so many rows."""
        self._expected: int | None = None
        """Address that is looked for in this pass; None: the name is."""
        self._was_expected = False
        self.callback = declared.EvalCallback(self._watch)
        """For llama_context_params.cb_eval; lives as long as this."""

    def begin(self, count: int) -> None:
        """Before each llama_decode of so many rows."""
        self._bytes_taken = 0
        self._count = count
        self._expected = self._learned.get(count)
        self._was_expected = self._expected is not None

    def has_missed(self) -> bool:
        """Whether the tensor went by unseen because its address had changed: the rows must be computed once
        more, and will be found by name then."""
        has_missed = self._was_expected and self._bytes_taken == 0
        if has_missed:
            self._learned.clear()
        return has_missed

    def rows(self, count: int) -> Floats:
        """(count, width), in the order of the batch. Raises EngineFailed where other rows came by."""
        if self._bytes_taken != count * self._buffer.shape[1] * 4:
            raise EngineFailed(
                f"the tensor {self._name.decode()} gave {self._bytes_taken} bytes for {count} rows of width "
                f"{self._buffer.shape[1]}: it is not this model's residual stream"
            )
        return self._buffer[:count]

    def _watch(self, tensor: int, is_question: bool, _user: object) -> bool:
        if is_question:
            expected = self._expected
            return tensor == expected if expected is not None else self._has_name(tensor)
        if not self._has_name(tensor):
            self._expected = None
            return True
        self._learned[self._count] = tensor
        self._take(tensor)
        return False

    def _has_name(self, tensor: int) -> bool:
        return bool(self._library.ggml_get_name(tensor) == self._name)

    def _take(self, tensor: int) -> None:
        """Behind what earlier parts of the same batch left. More than fits is counted, never written."""
        size: int = self._library.ggml_nbytes(tensor)
        if self._bytes_taken + size <= self._buffer.nbytes:
            address = ctypes.c_void_p(self._buffer.ctypes.data + self._bytes_taken)
            self._library.ggml_backend_tensor_get(tensor, address, 0, size)
        self._bytes_taken += size
