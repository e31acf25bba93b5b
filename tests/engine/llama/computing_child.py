"""A process that computes with engine/llama for a test, which must not load llama.cpp itself.

Counterpart: `computing.py` in the test's process. Calls come pickled over a socket, answers go back.
"""

import os
import sys
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np

from mesh_llm.core.errors import MeshError
from mesh_llm.engine.llama.context import Context, ContextSettings, NoRoom, rows_of
from mesh_llm.engine.llama.embedding import EmbeddingTable, TableInFile
from mesh_llm.engine.llama.library import load_library
from mesh_llm.engine.llama.model import Model, ModelSettings
from mesh_llm.engine.llama.tokenizer import Tokenizer

TENSOR_BYTES = 368
"""Of a tensor with its header in a graph (`ggml_tensor_overhead`): the one before lies so far before."""


class Computing:
    def __init__(self) -> None:
        self._library = load_library(os.environ)
        self._context: Context
        self._table: EmbeddingTable

    def load(self, path: Path, settings: ContextSettings) -> dict[str, Any]:
        seen: list[float] = []
        model = Model(self._library, ModelSettings(path), seen.append)
        self._context = Context(model, settings)
        names = ("width", "layers", "tokens", "window", "bytes", "context_trained", "takes_rows_apart")
        return {name: getattr(model, name) for name in names} | {
            "loaded": seen,
            "architecture": model.metadata("general.architecture"),
            "nothing": model.metadata("no.such.key"),
        }

    def unload(self) -> None:
        self._context.close()
        self._context.model.close()

    def decode(self, sequences: list[int], positions: list[int], **inputs: Any) -> np.ndarray:
        """Logits of all rows."""
        self._context.decode(rows_of(positions), rows_of(sequences), **inputs)
        return np.stack([self._context.logits(row) for row in range(len(positions))])

    def hidden(self, sequences: list[int], positions: list[int], **inputs: Any) -> np.ndarray:
        self._context.decode(rows_of(positions), rows_of(sequences), **inputs)
        return self._context.hidden(len(positions)).copy()

    def fill(self, sequences: list[int], positions: list[int], **inputs: Any) -> None:
        """Of the last row alone logits are wanted, and not asked for."""
        outputs = np.zeros(len(positions), np.int8)
        outputs[-1] = 1
        self._context.decode(rows_of(positions), rows_of(sequences), outputs=outputs, **inputs)

    def mislead(self, rows: int, to: str) -> None:
        """Let the residual stream be looked for where it is not: nowhere, or at another tensor."""
        residual: Any = self._context._residual
        (learned,) = residual._learned[rows]
        residual._learned[rows] = frozenset({1 if to == "nowhere" else learned - TENSOR_BYTES})
        residual._nodes.clear()

    def logits(self, row: int) -> np.ndarray:
        return self._context.logits(row).copy()

    def surprises(self, tokens: list[int]) -> list[float]:
        """Of each token but the first, its negative log-likelihood after those before it."""
        self._context.clear()
        found: list[float] = []
        batch = self._context.settings.batch
        for start in range(0, len(tokens), batch):
            chunk = tokens[start : start + batch]
            logits = self.decode(
                [0] * len(chunk), list(range(start, start + len(chunk))), tokens=rows_of(chunk)
            )
            for row, token in zip(logits, tokens[start + 1 : start + batch + 1], strict=False):
                shifted = row - row.max()
                found.append(float(np.log(np.exp(shifted).sum()) - shifted[token]))
        return found

    def tokens(self, text: str) -> list[int]:
        return Tokenizer(self._context.model).tokenize(text, add_special=False, parse_special=False)

    def text(self, tokens: list[int]) -> str:
        return Tokenizer(self._context.model).detokenize(tokens)

    def table(self, table: TableInFile) -> None:
        self._table = EmbeddingTable(self._library, table)

    def rows(self, tokens: list[int]) -> np.ndarray:
        return self._table.rows(tokens)

    def memory(self, method: str, *arguments: int) -> Any:
        return getattr(self._context, method)(*arguments)


def main() -> None:
    with Connection(int(sys.argv[1])) as connection:
        computing = Computing()
        while True:
            try:
                name, arguments, keywords = connection.recv()
            except EOFError:
                return
            try:
                connection.send((True, getattr(computing, name)(*arguments, **keywords)))
            except (MeshError, NoRoom, IndexError) as error:
                connection.send((False, f"{type(error).__name__}: {error}"))


if __name__ == "__main__":
    main()
