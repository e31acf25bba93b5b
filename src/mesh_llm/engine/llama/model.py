"""One GGUF in memory, whole or a stage. Counterpart: llama_model of llama.cpp; contexts compute on it."""

import ctypes
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from mesh_llm.core.errors import EngineFailed
from mesh_llm.engine.llama import declarations as declared
from mesh_llm.engine.llama.library import Library


@dataclass(frozen=True, slots=True)
class ModelSettings:
    path: Path
    """The first part of a split file; llama.cpp finds the others beside it."""
    gpu_layers: int = -1
    """-1: all, where there is a GPU."""
    device_shares: tuple[float, ...] = ()
    """Per device of the engine, in its order, what share it takes; empty: llama.cpp decides."""
    repacks: bool = True
    """Whether weights may be copied into a form that this processor multiplies faster. Without, they stay
    mapped: a model larger than memory is read from disk again and again, and a small test loads at once."""


class Model:
    """Free it with `close` after its contexts, or leave that to the end of the process."""

    def __init__(
        self, library: Library, settings: ModelSettings, on_loaded: Callable[[float], None] = lambda _: None
    ) -> None:
        """Blocks while it loads. `on_loaded` gets the share that is loaded, 0 to 1. Raises EngineFailed."""
        self.library = library
        self.handle: int | None = _load(library, settings, on_loaded)
        self.vocabulary: int = library.llama_model_get_vocab(self.handle)
        """llama_vocab, owned by the model."""
        self.width: int = library.llama_model_n_embd(self.handle)
        """Elements of a hidden state."""
        self.width_in: int = library.llama_model_n_embd_inp(self.handle)
        """Elements of a vector that goes in; more than `width` where a picture's features come along."""
        self.layers: int = library.llama_model_n_layer(self.handle)
        self.tokens: int = library.llama_vocab_n_tokens(self.vocabulary)
        """Size of the vocabulary, and of a row of logits."""
        self.window: int = library.llama_model_n_swa(self.handle)
        """Of its sliding-window layers; 0 where all attend to everything."""
        self.context_trained: int = library.llama_model_n_ctx_train(self.handle)
        self.bytes: int = library.llama_model_size(self.handle)
        """Of its tensors."""

    @property
    def takes_rows_apart(self) -> bool:
        """Whether llama.cpp may compute the rows of a batch in another order (recurrent layers)."""
        is_recurrent = self.library.llama_model_is_recurrent(self.handle)
        return bool(is_recurrent or self.library.llama_model_is_hybrid(self.handle))

    @property
    def positions_per_vector(self) -> int:
        rope = self.library.llama_model_rope_type(self.handle)
        return 4 if rope in declared.ROPE_TYPES_OF_FOUR_POSITIONS else 1

    def metadata(self, key: str) -> str | None:
        """A value of the file's header as text; None where it has none."""
        size = 256
        while True:
            buffer = ctypes.create_string_buffer(size)
            length: int = self.library.llama_model_meta_val_str(self.handle, key.encode(), buffer, size)
            if length < 0:
                return None
            if length < size:
                return buffer.value.decode("utf-8", "replace")
            size = length + 1

    def close(self) -> None:
        if self.handle is not None:
            self.library.llama_model_free(self.handle)
        self.handle = None


def _load(library: Library, settings: ModelSettings, on_loaded: Callable[[float], None]) -> int:
    parameters = library.llama_model_default_params().asked_for
    parameters.n_gpu_layers = settings.gpu_layers
    parameters.use_extra_bufts = settings.repacks
    shares = _shares(library, settings.device_shares)
    if shares is not None:
        parameters.tensor_split = ctypes.addressof(shares)
    parameters.progress_callback = progress = declared.ProgressCallback(_goes_on(on_loaded))
    handle: int | None = library.llama_model_load_from_file(str(settings.path).encode(), parameters)
    del progress, shares  # both had to live until here
    if not handle:
        raise EngineFailed(f"{settings.path.name} cannot be loaded")
    return handle


def _goes_on(on_loaded: Callable[[float], None]) -> Callable[[float, object], bool]:
    def go_on(share: float, _user: object) -> bool:
        on_loaded(share)
        return True

    return go_on


def _shares(library: Library, shares: tuple[float, ...]) -> "ctypes.Array[ctypes.c_float] | None":
    """As many as llama.cpp reads, which is not always as many as there are devices."""
    if not shares:
        return None
    count = max(int(library.llama_max_devices()), len(shares))
    return (ctypes.c_float * count)(*shares)
