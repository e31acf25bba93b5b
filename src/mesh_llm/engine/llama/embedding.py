"""Rows of a token embedding, as the model's own graph would look them up.

Counterpart: `ggml_compute_forward_get_rows` (ggml-cpu/ops.cpp), which makes floats of a row with the same
`to_float` of its storage type: equal bit for bit. Rows are read off the file, so the table takes no memory of
its own; scales that an architecture applies to tokens are the caller's.
"""

import ctypes
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from mesh_llm.core.errors import ModelDamaged
from mesh_llm.engine.llama.library import Library

F32 = 0
"""GGML_TYPE_F32: has no `to_float`, for it needs none."""


@dataclass(frozen=True, slots=True)
class TableInFile:
    """Where `token_embd.weight` lies, as the header of its file says."""

    path: Path
    offset: int
    """Of its first byte in the file."""
    storage: int
    """ggml's number of its type."""
    width: int
    rows: int


class EmbeddingTable:
    def __init__(self, library: Library, table: TableInFile) -> None:
        """Raises ModelDamaged where the file ends before the table, OSError where it cannot be read."""
        self._table = table
        self._to_float = library.ggml_get_type_traits(table.storage).contents.to_float
        row_bytes: int = library.ggml_row_size(table.storage, table.width)
        if table.path.stat().st_size < table.offset + table.rows * row_bytes:
            raise ModelDamaged(f"{table.path} ends before its token embedding does: fetch it again")
        self._bytes = np.memmap(table.path, np.uint8, "r", table.offset, (table.rows, row_bytes))

    def rows(self, tokens: npt.NDArray[np.int32]) -> npt.NDArray[np.float32]:
        """(tokens, width). Raises IndexError for a token that the table does not have."""
        if len(tokens) and (tokens.min() < 0 or tokens.max() >= self._table.rows):
            raise IndexError(f"tokens are 0 to {self._table.rows - 1}")
        stored = np.ascontiguousarray(self._bytes[tokens])
        if self._table.storage == F32:
            return stored.view(np.float32)
        floats = np.empty((len(tokens), self._table.width), np.float32)
        # Rows are whole blocks, so many rows are made floats as one long one.
        self._to_float(ctypes.c_void_p(stored.ctypes.data), ctypes.c_void_p(floats.ctypes.data), floats.size)
        return floats
