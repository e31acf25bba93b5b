"""Text into tokens and back, and what the vocabulary says of its special tokens.

Counterparts: `common_tokenize` and `common_token_to_piece` of llama.cpp's common.cpp. Thread-safe, as
llama.cpp's own tokenizer is.
"""

import ctypes
from typing import Any

import numpy as np
import numpy.typing as npt

from mesh_llm.core.errors import EngineFailed
from mesh_llm.engine.llama.model import Model

NONE = -1
"""LLAMA_TOKEN_NULL: the vocabulary has no such token."""

TEXT_BYTES_MAX = 2**31 - 1
"""llama_tokenize counts in int32."""


class Tokenizer:
    def __init__(self, model: Model) -> None:
        self.library = model.library
        self._model = model
        self.vocabulary: int = model.vocabulary
        """llama_vocab, owned by the model."""
        self.size: int = model.tokens
        self._pieces: dict[int, bytes] = {}

    def tokenize(self, text: str, *, add_special: bool, parse_special: bool) -> list[int]:
        """`add_special` puts BOS and EOS where the vocabulary asks for them; `parse_special` reads the text
        of control tokens as these tokens. Raises EngineFailed for a text beyond all bounds."""
        data = text.encode("utf-8", "replace")
        if len(data) >= TEXT_BYTES_MAX:
            raise EngineFailed(f"a text of {len(data)} bytes is too long to be cut into tokens")
        room = len(data) + 2
        while True:
            tokens: npt.NDArray[np.int32] = np.empty(room, np.int32)
            count: int = self.library.llama_tokenize(
                self.vocabulary, data, len(data), tokens.ctypes.data, room, add_special, parse_special
            )
            if count >= 0:
                return [int(token) for token in tokens[:count]]
            room = -count

    def piece(self, token: int) -> bytes:
        """The bytes that a token adds to an answer: none for control tokens, part of a character for some."""
        known = self._pieces.get(token)
        if known is None:
            known = self._pieces[token] = self._render(token, special=False)
        return known

    def spelled(self, token: int) -> bytes:
        """As `piece`, with the text of control tokens: what grammars are held against."""
        return self._render(token, special=True)

    def detokenize(self, tokens: list[int]) -> str:
        """As llama-server's `/detokenize`: control tokens included, what is no UTF-8 replaced."""
        return b"".join(self._render(token, special=True) for token in tokens).decode("utf-8", "replace")

    def special_text(self, token: int) -> str:
        """Of a control token, for templates; empty for none."""
        return "" if token == NONE else self._render(token, special=True).decode("utf-8", "replace")

    def ends(self, token: int) -> bool:
        """Whether it ends an answer: EOS, EOT and their like."""
        return bool(self.library.llama_vocab_is_eog(self.vocabulary, token))

    def ending(self) -> list[int]:
        """All tokens that end an answer."""
        return [token for token in range(self.size) if self.ends(token)]

    @property
    def beginning(self) -> int:
        """BOS, or NONE."""
        return self.library.llama_vocab_bos(self.vocabulary)

    @property
    def end(self) -> int:
        """EOS, or NONE."""
        return self.library.llama_vocab_eos(self.vocabulary)

    @property
    def end_of_turn(self) -> int:
        """EOT, or NONE."""
        return self.library.llama_vocab_eot(self.vocabulary)

    @property
    def adds_beginning(self) -> bool:
        return bool(self.library.llama_vocab_get_add_bos(self.vocabulary))

    @property
    def adds_end(self) -> bool:
        return bool(self.library.llama_vocab_get_add_eos(self.vocabulary))

    def suppressed(self) -> list[int]:
        """Tokens that the file says may never be sampled (`tokenizer.ggml.suppress_tokens`)."""
        count = ctypes.c_int32(0)
        address = self.library.llama_vocab_get_suppress_tokens(self.vocabulary, ctypes.byref(count))
        if not address:
            return []
        values: Any = (ctypes.c_int32 * count.value).from_address(address)
        return list(values)

    def chat_template(self, name: str | None = None) -> str | None:
        """The file's own, or another of this `name` in it; None where it has none."""
        asked = None if name is None else name.encode()
        text: bytes | None = self.library.llama_model_chat_template(self._model.handle, asked)
        return text.decode("utf-8", "replace") if text else None

    def _render(self, token: int, *, special: bool) -> bytes:
        room = 64
        while True:
            buffer = ctypes.create_string_buffer(room)
            count: int = self.library.llama_token_to_piece(self.vocabulary, token, buffer, room, 0, special)
            if count >= 0:
                return buffer.raw[:count]
            room = -count
