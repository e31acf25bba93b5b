"""The residual stream where it enters the layers and where it leaves them, as rows of named tensors.

llama.cpp's scheduler asks its eval callback about each node of the graph, in order: "do you want this one?";
after a wanted node is computed it calls again (`ggml_backend_sched_compute_splits` of ggml-backend.cpp). Then
what leaves is read; answering no skips the rest of the graph, for a stage its final norm and output head. And
what enters may be written over: some architectures scale vectors as they scale tokens (gemma2) or abort at
vectors (glm4), so they are given tokens, whose embeddings are replaced before anybody reads them.

Some thirty questions a layer come in each step, and each would cost 0.6 us in a function of Python. So the
callback is a look into a table of addresses, which runs no Python: None is no, and a `_Node` answers by its
truth. A graph for as many rows lies where the last one did, so addresses are learned by name, held against
the name once more when their node is computed, and forgotten where they were wrong (`has_missed`).
"""

import ctypes
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from mesh_llm.core.errors import EngineFailed
from mesh_llm.engine.llama import declarations as declared
from mesh_llm.engine.llama.library import Library

Floats = npt.NDArray[np.float32]


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
        self._learned: dict[int, frozenset[int]] = {}
        """Addresses of the tensors in graphs for so many rows."""
        self._was_by_name = True
        self._nodes = _Nodes(self)
        self.callback = declared.EvalCallback(self._nodes.__getitem__)
        """For llama_context_params.cb_eval; lives as long as this."""

    def begin(self, count: int, given: Floats | None) -> None:
        """Before each llama_decode of so many rows. `given`: (count, width) that enter."""
        self._enters.passed = self._leaves.passed = 0
        self._given = given
        self._was_by_name = count not in self._learned
        if self._was_by_name or count != self._count:
            self._nodes.clear()
        self._count = count
        self._nodes.begin()

    def has_missed(self) -> bool:
        """Whether a tensor went by unseen because its address had changed: the rows must be computed once
        more, and will be found by name then."""
        is_complete = self._is_complete()
        if not is_complete:
            self._forget()
        elif self._was_by_name:
            self._learned[self._count] = self._nodes.wanted()
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

    def is_wanted(self, tensor: int) -> bool:
        """Of an address that this step's graph shows for the first time."""
        learned = self._learned.get(self._count)
        return self._name(tensor) is not None if learned is None else tensor in learned

    def pass_by(self, tensor: int) -> bool:
        """A wanted tensor is computed; whether the graph goes on."""
        name = self._name(tensor)
        if name is None:
            self._forget()
        elif name == self._leaves.name:
            self._take(tensor)
            return False
        else:
            self._give(tensor)
        return True

    def _name(self, tensor: int) -> bytes | None:
        """None for one that is not watched."""
        name: bytes = self._library.ggml_get_name(tensor)
        return name if name in (self._enters.name, self._leaves.name) else None

    def _forget(self) -> None:
        """From here on tensors are found by name."""
        self._learned.clear()
        self._nodes.clear()

    def _is_complete(self) -> bool:
        whole = self._count * self._row_bytes
        return all(p.name is None or p.passed == whole for p in (self._enters, self._leaves))

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


@dataclass(slots=True, eq=False)
class _Node:
    """A wanted tensor. It is asked for its truth twice: whether it is wanted, and once it is computed."""

    residual: Residual
    tensor: int
    is_wanted: bool = False

    def __bool__(self) -> bool:
        self.is_wanted = not self.is_wanted
        return self.is_wanted or self.residual.pass_by(self.tensor)


class _Nodes(dict[int, _Node | None]):
    """By address: all nodes of the graph that have come by since the last `clear`."""

    def __init__(self, residual: Residual) -> None:
        super().__init__()
        self._residual = residual
        self._wanted: dict[int, _Node] = {}

    def __missing__(self, tensor: int) -> _Node | None:
        node = _Node(self._residual, tensor) if self._residual.is_wanted(tensor) else None
        if node is not None:
            self._wanted[tensor] = node
        self[tensor] = node
        return node

    def begin(self) -> None:
        """A new step: nothing has been asked for, whatever became of the last one."""
        for node in self._wanted.values():
            node.is_wanted = False

    def wanted(self) -> frozenset[int]:
        return frozenset(self._wanted)

    def clear(self) -> None:
        super().clear()
        self._wanted.clear()
