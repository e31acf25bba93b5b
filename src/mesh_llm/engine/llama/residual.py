"""The residual stream where it enters the layers and where it leaves them, as rows of named tensors.

llama.cpp's scheduler asks its eval callback about each node of the graph, in order: "do you want this one?";
after a wanted node is computed it calls again (`ggml_backend_sched_compute_splits` of ggml-backend.cpp). Then
what leaves is read; answering no skips the rest of the graph, for a stage its final norm and output head. And
what enters may be written over: some architectures scale vectors as they scale tokens (gemma2) or abort at
vectors (glm4), so they are given tokens, whose embeddings are replaced before anybody reads them.

Some thirty questions a layer come in each step. Comparing names costs 0.5 us each, comparing addresses 0.1,
and a graph for as many rows lies where the last one did. So addresses are learned by name, held against the
name once more when their node is computed, and forgotten where they were wrong (`has_missed`).
"""

import ctypes
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from mesh_llm.core.errors import EngineFailed
from mesh_llm.engine.llama import declarations as declared
from mesh_llm.engine.llama.library import Library

Floats = npt.NDArray[np.float32]

NOWHERE = -1
"""No tensor lies there."""


@dataclass(slots=True)
class Passage:
    """One of the two tensors, and how many bytes have passed in this step."""

    name: bytes | None
    """None: it is not watched."""
    passed: int = 0


class Residual:
    def __init__(
        self, library: Library, enters: str | None, leaves: str | None, rows_max: int, width: int
    ) -> None:
        self._library = library
        self._enters = Passage(enters.encode() if enters else None)
        self._leaves = Passage(leaves.encode() if leaves else None)
        self._given: Floats | None = None
        self._buffer: Floats = np.empty((rows_max if leaves else 0, width), np.float32)
        self._row_bytes = 4 * width
        self._count = 0
        self._learned: dict[int, tuple[int, int]] = {}
        """Addresses of both tensors in graphs for so many rows."""
        self._expected = self._found = (NOWHERE, NOWHERE)
        self._is_by_name = True
        self._was_by_name = True
        self.callback = declared.EvalCallback(self._watch)
        """For llama_context_params.cb_eval; lives as long as this."""

    def begin(self, count: int, given: Floats | None) -> None:
        """Before each llama_decode of so many rows. `given`: (count, width) that enter."""
        self._enters.passed = self._leaves.passed = 0
        self._given = given
        self._count = count
        learned = self._learned.get(count)
        self._was_by_name = self._is_by_name = learned is None
        self._expected = learned or (NOWHERE, NOWHERE)
        self._found = (NOWHERE, NOWHERE)

    def has_missed(self) -> bool:
        """Whether a tensor went by unseen because its address had changed: the rows must be computed once
        more, and will be found by name then."""
        is_complete = self._is_complete()
        if is_complete:
            self._learned[self._count] = self._found
        else:
            self._learned.clear()
        return not is_complete and not self._was_by_name

    def check(self) -> None:
        """After each llama_decode. Raises EngineFailed where a tensor did not come by with all rows."""
        whole = self._count * self._row_bytes
        for passage in (self._enters, self._leaves):
            if passage.name is not None and passage.passed != whole:
                raise EngineFailed(
                    f"the tensor {passage.name.decode()} had {passage.passed} of {whole} bytes for "
                    f"{self._count} rows: this model's residual stream does not pass there"
                )

    def rows(self, count: int) -> Floats:
        """(count, width), in the order of the batch."""
        return self._buffer[:count]

    def _is_complete(self) -> bool:
        whole = self._count * self._row_bytes
        return all(p.name is None or p.passed == whole for p in (self._enters, self._leaves))

    def _watch(self, tensor: int, is_question: bool, _user: object) -> bool:
        if is_question:
            return self._is_wanted(tensor) if self._is_by_name else tensor in self._expected
        name = self._library.ggml_get_name(tensor)
        if name == self._leaves.name:
            self._found = (self._found[0], tensor)
            self._take(tensor)
            return False
        if name == self._enters.name:
            self._found = (tensor, self._found[1])
            self._give(tensor)
        else:
            self._is_by_name = True
        return True

    def _is_wanted(self, tensor: int) -> bool:
        return self._library.ggml_get_name(tensor) in (self._enters.name, self._leaves.name)

    def _take(self, tensor: int) -> None:
        """Behind what earlier parts of the same batch left. More than fits is counted, never written."""
        size: int = self._library.ggml_nbytes(tensor)
        if self._leaves.passed + size <= self._buffer.nbytes:
            address = ctypes.c_void_p(self._buffer.ctypes.data + self._leaves.passed)
            self._library.ggml_backend_tensor_get(tensor, address, 0, size)
        self._leaves.passed += size

    def _give(self, tensor: int) -> None:
        size: int = self._library.ggml_nbytes(tensor)
        given = self._given
        if given is not None and self._enters.passed + size <= given.nbytes:
            address = ctypes.c_void_p(given.ctypes.data + self._enters.passed)
            self._library.ggml_backend_tensor_set(tensor, address, 0, size)
        self._enters.passed += size
