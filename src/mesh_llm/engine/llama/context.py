"""Computing on a model: rows of many sequences in, logits or hidden states out, and the KV cache between.

Counterpart: llama_context of llama.cpp. Knows nothing of stages, rings and requests. One thread at a time.
"""

import ctypes
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from mesh_llm.core.errors import EngineFailed
from mesh_llm.engine.llama import declarations as declared
from mesh_llm.engine.llama.model import Model
from mesh_llm.engine.llama.residual import Residual
from mesh_llm.engine.llama.watching import Watching

Integers = npt.NDArray[np.int32]
Floats = npt.NDArray[np.float32]

NO_ROOM = 1
"""What llama_decode returns where the KV cache has no place for the rows; nothing has been computed then."""


class NoRoom(Exception):
    """The KV cache is full: something must be dropped, or the rows must wait. The context is as before."""


@dataclass(frozen=True, slots=True)
class ContextSettings:
    context: int
    """Tokens of all sequences together, which share the cache; one of them may use it all."""
    batch: int
    """Rows at most that `decode` takes; they are computed in one go."""
    sequences: int
    threads: int
    kv_type: str = "f16"
    """`f16`, `q8_0` or `q4_0` (or `f32`, `bf16`), for keys and values."""
    outputs: int = 0
    """Rows of one batch at most whose logits are wanted; 0: all."""
    residual: str | None = None
    """Name of the tensor whose rows `hidden` gives, `l_out-11`; None: nothing is watched."""
    entrance: str | None = None
    """Name of the tensor that hidden states are written over where the architecture does not take vectors as
    they are, `inp_scaled`; None: it does."""


class Context:
    """Free it with `close`, before its model."""

    def __init__(self, model: Model, settings: ContextSettings, watching: Watching | None = None) -> None:
        """Takes the memory of the KV cache at once. `watching`: of any tensors, in the place of a residual.
        Raises EngineFailed."""
        self.model = model
        self._watching = watching
        self.settings = settings
        self._library = model.library
        self._residual = _watched(model, settings)
        self._rows = _Rows(settings.batch, model.positions_per_vector)
        self.handle: int | None = self._library.llama_init_from_model(model.handle, self._parameters())
        if not self.handle:
            raise EngineFailed(
                f"no context of {settings.context} tokens could be made (KV type {settings.kv_type})"
            )
        self._memory: int = self._library.llama_get_memory(self.handle)

    def decode(
        self,
        positions: Integers,
        sequences: Integers,
        *,
        tokens: Integers | None = None,
        hidden: Floats | None = None,
        outputs: npt.NDArray[np.int8] | None = None,
    ) -> None:
        """Compute rows, given as `tokens` (rows,) or as `hidden` (rows, width) vectors.

        `positions` and `sequences` are (rows,); `outputs` (rows,) is 1 where logits are wanted, None: all.
        Positions must continue each sequence, and numbers be in range: who gets rows from strangers checks
        that first. Raises NoRoom, EngineFailed (also where a tensor of the settings is not of this model).
        """
        count = len(positions)
        if not 0 < count <= self.settings.batch:
            raise EngineFailed(f"{count} rows do not go into a batch of {self.settings.batch}")
        given = None if hidden is None else np.ascontiguousarray(hidden, np.float32)
        if given is not None and self.settings.entrance is not None:
            tokens = np.zeros(count, np.int32)  # of any text: what they stand for is replaced
        batch = self._rows.filled(positions, sequences, tokens, given, outputs)
        self._compute(batch, given)
        if self._residual is None:
            return
        if self._residual.has_missed():
            for sequence in np.unique(sequences).tolist():
                self.drop(sequence, int(positions[sequences == sequence].min()))
            self._compute(batch, given)
        self._residual.check()

    def _compute(self, batch: declared.Batch, given: Floats | None) -> None:
        count: int = batch.n_tokens
        if self._residual is not None:
            self._residual.begin(count, given)
        status: int = self._library.llama_decode(self.handle, batch)
        if status == NO_ROOM:
            raise NoRoom(f"the KV cache of {self.settings.context} tokens has no room for {count} more")
        if status != 0:
            raise EngineFailed(f"llama_decode failed with {status}")

    def hidden(self, rows: int) -> Floats:
        """(rows, width) of the residual after the last `decode`, a view that the next one overwrites."""
        if self._residual is None or self.settings.residual is None:
            raise EngineFailed("this context watches no residual stream")
        return self._residual.rows(rows)

    def logits(self, row: int) -> Floats:
        """(vocabulary,) of one row of the last batch that was marked as an output; a view that the next
        `decode` overwrites. Waits until it is computed."""
        address: int | None = self._library.llama_get_logits_ith(self.handle, row)
        if not address:
            raise EngineFailed(f"row {row} was not marked as an output")
        return _floats_at(address, self.model.tokens)

    def drop(self, sequence: int, first: int = 0, end: int = -1) -> bool:
        """Forget positions [first, end) of a sequence, -1: to its end. False where a part cannot be
        forgotten alone (recurrent layers)."""
        return bool(self._library.llama_memory_seq_rm(self._memory, sequence, first, end))

    def copy(self, sequence: int, target: int, first: int = 0, end: int = -1) -> None:
        """Let positions [first, end) of `sequence` belong to `target` as well; no memory is taken."""
        self._library.llama_memory_seq_cp(self._memory, sequence, target, first, end)

    def clear(self) -> None:
        """Forget everything."""
        self._library.llama_memory_clear(self._memory, False)

    def first_held(self, sequence: int) -> int:
        """The smallest position that is still in all layers' cache, -1 for none."""
        return int(self._library.llama_memory_seq_pos_min(self._memory, sequence))

    def last_held(self, sequence: int) -> int:
        """The largest position, -1 for none."""
        return int(self._library.llama_memory_seq_pos_max(self._memory, sequence))

    def can_go_on_at(self, sequence: int, position: int) -> bool:
        """Whether what a next row at `position` attends to is all there. Layers with a sliding window forget
        what has left it, so a sequence cannot be cut back far (llama-server's `pos_min_thold`)."""
        if position == 0:
            return True
        first, last = self.first_held(sequence), self.last_held(sequence)
        needed = max(0, position - self.model.window) if self.model.window else 0
        return 0 <= first <= needed and last >= position - 1

    def close(self) -> None:
        if self.handle is not None:
            self._library.llama_free(self.handle)
        self.handle = None

    def _parameters(self) -> declared.ContextParameters:
        """As llama-server sets them for a whole model (common.cpp, common_context_params_to_llama)."""
        settings = self.settings
        parameters = self._library.llama_context_default_params().asked_for
        parameters.n_ctx, parameters.n_seq_max = settings.context, settings.sequences
        parameters.n_batch = parameters.n_ubatch = settings.batch
        parameters.n_outputs_max = settings.outputs
        parameters.n_threads = parameters.n_threads_batch = settings.threads
        parameters.type_k = parameters.type_v = declared.KV_TYPES[settings.kv_type]
        parameters.kv_unified = True
        parameters.swa_full = False
        watched = self._watching or self._residual
        if watched is not None:
            parameters.cb_eval = watched.callback
        return parameters


def _watched(model: Model, settings: ContextSettings) -> Residual | None:
    if settings.residual is None and settings.entrance is None:
        return None
    return Residual(model.library, settings.entrance, settings.residual, settings.batch, model.width)


def _floats_at(address: int, count: int) -> Floats:
    floats: Any = (ctypes.c_float * count).from_address(address)
    return np.frombuffer(floats, np.float32)


class _Rows:
    """The arrays that a llama_batch points to, made once."""

    def __init__(self, batch: int, positions_per_vector: int) -> None:
        self._positions_per_vector = positions_per_vector
        self._positions = np.zeros(batch * positions_per_vector, np.int32)
        self._sequences = np.zeros(batch, np.int32)
        self._tokens = np.zeros(batch, np.int32)
        self._ones = np.ones(batch, np.int32)
        first = self._sequences.ctypes.data
        self._sequence_addresses = np.arange(first, first + 4 * batch, 4, dtype=np.uintp)
        self._outputs = np.ones(batch, np.int8)
        self._batch = declared.Batch(
            pos=self._positions.ctypes.data,
            n_seq_id=self._ones.ctypes.data,
            seq_id=self._sequence_addresses.ctypes.data,
            logits=self._outputs.ctypes.data,
        )

    def filled(
        self,
        positions: Integers,
        sequences: Integers,
        tokens: Integers | None,
        hidden: Floats | None,
        outputs: npt.NDArray[np.int8] | None,
    ) -> declared.Batch:
        count = len(positions)
        self._sequences[:count] = sequences
        self._outputs[:count] = 1 if outputs is None else outputs
        batch = self._batch
        batch.n_tokens = count
        batch.token = batch.embd = None
        self._positions[:count] = positions
        if tokens is not None:
            self._tokens[:count] = tokens
            batch.token = self._tokens.ctypes.data
        elif hidden is not None:
            batch.embd = hidden.ctypes.data
            self._spread(count)
        return batch

    def _spread(self, count: int) -> None:
        """A text's position as vectors want it for M-RoPE: [p, p, p, 0], section by section."""
        if self._positions_per_vector == 1:
            return
        sections = self._positions[: 4 * count].reshape(4, count)
        sections[1:3] = sections[0]
        sections[3] = 0


def rows_of(values: Sequence[int]) -> Integers:
    """Positions, sequences or tokens as `decode` wants them."""
    return np.asarray(values, np.int32)
