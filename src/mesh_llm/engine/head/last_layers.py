"""What the head computes itself: embedding rows at the start of a step, the last layers and sampling at its
end. One thread at a time, but for the tokenizer and for making samplers.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from time import perf_counter

import numpy as np
import numpy.typing as npt

from mesh_llm.core.errors import EngineFailed, ModelDamaged
from mesh_llm.engine.head.settings import HeadSettings
from mesh_llm.engine.llama.constraint import Constraint
from mesh_llm.engine.llama.context import Context, ContextSettings, Floats, Integers
from mesh_llm.engine.llama.embedding import EmbeddingTable, TableInFile
from mesh_llm.engine.llama.library import Library
from mesh_llm.engine.llama.model import Model, ModelSettings
from mesh_llm.engine.llama.probabilities import Probabilities, of_logits
from mesh_llm.engine.llama.samplers import Sampler
from mesh_llm.engine.llama.sampling import Sampling
from mesh_llm.engine.llama.tokenizer import Tokenizer
from mesh_llm.engine.ring.frames import Command, Operation
from mesh_llm.models.gguf.header import read_file_header
from mesh_llm.models.gguf.tensors import STORAGE_TYPES

EMBEDDING = "token_embd.weight"


class LastLayers:
    def __init__(self, library: Library, settings: HeadSettings, on_loaded: Callable[[float], None]) -> None:
        """Blocks while it loads. Raises EngineFailed, ModelDamaged."""
        path = Path(settings.model_path)
        model = Model(library, ModelSettings(path, settings.gpu_layers, settings.device_shares), on_loaded)
        self._model = model
        self._context = Context(
            model,
            ContextSettings(
                context=settings.context_length,
                batch=settings.batch,
                sequences=settings.sequences,
                threads=settings.threads,
                kv_type=settings.kv_type,
                outputs=min(settings.batch, settings.sequences),  # each is sampled once in a step
                entrance=settings.entrance if settings.stages else None,
            ),
        )
        self.width = model.width
        self.forgets = model.window > 0 or model.takes_rows_apart
        """Whether some layers of the model, of other stages too, do not keep all that they have seen."""
        self.tokenizer = Tokenizer(model)
        self._suppressed = tuple((token, float("-inf")) for token in self.tokenizer.suppressed())
        self._table = EmbeddingTable(library, find_embedding(path)) if settings.stages else None
        self._scale = np.float32(settings.embedding_scale)

    def embed(self, tokens: Sequence[int]) -> Floats:
        """(tokens, width): what the first layer is given. Only with remote stages."""
        if self._table is None:
            raise EngineFailed("a head that holds all layers looks no embeddings up")
        rows = self._table.rows(tokens)
        return rows if self._scale == 1 else rows * self._scale

    def apply(self, commands: Sequence[Command]) -> None:
        for command in commands:
            match command.operation:
                case Operation.DROP:
                    self._context.drop(command.sequence, command.first, command.end)
                case Operation.COPY:
                    self._context.copy(command.sequence, command.target, command.first, command.end)
                case Operation.CLEAR:
                    self._context.clear()

    def clear(self) -> None:
        """Forget all sequences."""
        self._context.clear()

    def compute_hidden(
        self, positions: Integers, sequences: Integers, hidden: Floats, outputs: npt.NDArray[np.int8]
    ) -> None:
        """Rows that have come round the ring. Raises NoRoom, EngineFailed."""
        self._context.decode(positions, sequences, hidden=hidden, outputs=outputs)

    def compute_tokens(
        self, positions: Integers, sequences: Integers, tokens: Sequence[int], outputs: npt.NDArray[np.int8]
    ) -> None:
        """Where all layers are here: llama.cpp looks the rows up, and scales them, itself."""
        ids = np.asarray(tokens, np.int32)
        self._context.decode(positions, sequences, tokens=ids, outputs=outputs)

    def sampler(self, sampling: Sampling, constraint: Constraint | None = None) -> Sampler:
        """In any thread. May take a second."""
        biased = replace(sampling, biases=(*sampling.biases, *self._suppressed))
        return Sampler(self._model, biased, constraint)

    def sample(self, sampler: Sampler, row: int) -> int:
        """From a row of the last step that was computed, marked as an output. Raises ConstraintBroken."""
        return sampler.sample(self._context, row)

    def probabilities(self, row: int, token: int, count: int) -> Probabilities:
        """Of `token` and the likeliest `count`, as the model gave them for such a row."""
        return of_logits(self._context.logits(row), token, count)

    def warm_up(self, rows: int) -> float:
        """Seconds that a step of so many rows takes; memory that it needs is taken. Leaves no trace."""
        positions, sequences = np.arange(rows, dtype=np.int32), np.zeros(rows, np.int32)
        outputs = np.zeros(rows, np.int8)
        outputs[-1] = 1
        tokens = [row % self.tokenizer.size for row in range(rows)]
        begun = perf_counter()
        if self._table is None:
            self.compute_tokens(positions, sequences, tokens, outputs)
        else:
            self.compute_hidden(positions, sequences, self.embed(tokens), outputs)
        self._context.logits(rows - 1)  # waits for devices that compute behind our back
        seconds = perf_counter() - begun
        self._context.clear()
        return seconds


def find_embedding(path: Path) -> TableInFile:
    """Of a stage file, which is never split. Raises ModelNotFound, ModelDamaged."""
    header = read_file_header(path)
    tensor = next((tensor for tensor in header.tensors if tensor.name == EMBEDDING), None)
    if tensor is None:
        raise ModelDamaged(f"{path.name} has no {EMBEDDING}: it is no file of a head. Fetch the model again.")
    width, rows = tensor.dimensions
    storage = next(number for number, known in STORAGE_TYPES.items() if known == tensor.storage)
    return TableInFile(path, header.data_offset + tensor.offset, storage, width, rows)
