"""Rows of a token embedding, as the model's own graph would look them up.

Counterpart: `ggml_compute_forward_get_rows` (ggml-cpu/ops.cpp), which makes floats of a row with the same
`to_float` of its storage type: equal bit for bit. Rows are read off the file, so the table takes no memory of
its own; scales that an architecture applies to tokens are the caller's. One row is what each step of a lone
answer needs, with caches that a model's layers have swept: few calls, and no array but the result.
"""

import ctypes
from collections.abc import Sequence
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
        self._row_bytes = row_bytes
        self._bytes = np.memmap(table.path, np.uint8, "r", table.offset, (table.rows, row_bytes))
        self._first: int = self._bytes.ctypes.data

    def rows(self, tokens: Sequence[int]) -> npt.NDArray[np.float32]:
        """(tokens, width). Raises IndexError for a token that the table does not have."""
        width, rows = self._table.width, self._table.rows
        floats = np.empty((len(tokens), width), np.float32)
        to = floats.ctypes.data
        for token in tokens:
            if not 0 <= token < rows:
                raise IndexError(f"tokens are 0 to {rows - 1}")
            self._write_row(self._first + token * self._row_bytes, to)
            to += 4 * width
        return floats

    def _write_row(self, stored: int, to: int) -> None:
        if self._table.storage == F32:
            ctypes.memmove(to, stored, self._row_bytes)
        else:
            self._to_float(stored, to, self._table.width)
