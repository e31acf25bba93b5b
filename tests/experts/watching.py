"""Reads tensors out of a model while it computes. For children that load llama.cpp."""

import ctypes
from collections.abc import Callable

import numpy as np

from mesh_llm.engine.llama import declarations as declared
from mesh_llm.engine.llama.context import Context, ContextSettings, rows_of
from mesh_llm.engine.llama.library import Library
from mesh_llm.engine.llama.model import Model

Seen = Callable[[str, np.ndarray], None]


class Watching:
    """llama.cpp asks of each tensor whether it is wanted, and once more when a wanted one is computed: there
    no ends the batch."""

    def __init__(self, library: Library, names: set[str], last: str, seen: Seen) -> None:
        self._library = library
        self._names = names
        self._last = last
        self._seen = seen
        self._asked: set[int] = set()
        self.callback = declared.EvalCallback(self._answer)

    def _answer(self, tensor: int) -> bool:
        if tensor not in self._asked:
            is_wanted = self._library.ggml_get_name(tensor).decode() in self._names
            self._asked |= {tensor} if is_wanted else set()
            return is_wanted
        self._asked.discard(tensor)
        name = self._library.ggml_get_name(tensor).decode()
        values = np.empty(self._library.ggml_nbytes(tensor) // 4, np.float32)
        self._library.ggml_backend_tensor_get(tensor, ctypes.c_void_p(values.ctypes.data), 0, values.nbytes)
        self._seen(name, values)
        return name != self._last


class WatchedContext(Context):
    """Computes runs of tokens, each from an empty cache, up to a last tensor."""

    def __init__(self, model: Model, settings: ContextSettings, watching: Watching) -> None:
        self._callback = watching.callback
        super().__init__(model, settings)

    def run(self, tokens: list[int]) -> None:
        self.clear()
        count = len(tokens)
        self.decode(rows_of(range(count)), rows_of([0] * count), tokens=rows_of(tokens))

    def _parameters(self) -> declared.ContextParameters:
        parameters = super()._parameters()
        parameters.cb_eval = self._callback
        return parameters
