"""A GBNF grammar as a constraint: llama.cpp's own grammar sampler, kept from what would end the process.

Counterpart: llama-grammar.cpp, which throws through its C API when a token is accepted that does not fit, and
whose work may double with each character of a token where a grammar is ambiguous. So nothing is accepted that
was not let through, and tokens are tried by their length, the short ones first, until the time is up. Whether
a text may be given to llama.cpp at all is told by `head/constraints/gbnf.py`.
"""

import ctypes
from dataclasses import dataclass
from time import thread_time
from typing import Any

import numpy as np
import numpy.typing as npt

from mesh_llm.core.errors import RequestRefused
from mesh_llm.engine.llama.constraint import ConstraintBroken
from mesh_llm.engine.llama.context import Floats, Integers
from mesh_llm.engine.llama.declarations import TokenData, TokenDataArray
from mesh_llm.engine.llama.tokenizer import Tokenizer

SECONDS_MAX = 0.5
"""Of the processor, for one question to the grammar; all other answers wait meanwhile. A JSON grammar takes
20 ms for all of 150,000 tokens."""

TOKEN_SECONDS_MAX = 0.005
"""For a question about one token, which takes microseconds. To accept it then takes the square of the ways in
which it may be read: a second, where this was the time to find them."""

TOKEN_CHARACTERS_MAX = 32
"""Longer tokens (runs of blanks, mostly) are never let through: they may be said in several. Between one
length and the next there would be room for more work than can be waited for."""

ROOT = b"root"

ENTRY: Any = np.dtype([("id", "<i4"), ("logit", "<f4"), ("p", "<f4")])
"""llama_token_data"""


@dataclass(frozen=True, slots=True)
class Lengths:
    """The vocabulary by the length of its tokens; one for all grammars of a model."""

    tokens: Integers
    """All that may be let through, the short ones first."""
    ends: tuple[int, ...]
    """Where in `tokens` each length ends."""
    prefixes: dict[int, tuple[int, ...]]
    """Of tokens of several characters: those that they begin with, the short ones first."""


PREFIXES_FROM = 3
"""Characters: shorter tokens are tried at once."""


def lengths_of(tokenizer: Tokenizer) -> Lengths:
    """Takes a second for a large vocabulary."""
    spelled = [tokenizer.spelled(token) for token in range(tokenizer.size)]
    counts = np.array([len(text.decode("utf-8", "replace")) for text in spelled], np.int32)
    counts[tokenizer.ending()] = 0  # they are not read as text
    order = np.argsort(counts, kind="stable").astype(np.int32)
    order = order[counts[order] <= TOKEN_CHARACTERS_MAX]
    changes = np.flatnonzero(np.diff(counts[order])) + 1
    by_text = {text: token for token, text in enumerate(spelled)}
    long = (int(token) for token in order[counts[order] >= PREFIXES_FROM])
    prefixes = {token: _prefixes(spelled[token], by_text) for token in long}
    return Lengths(order, (*(int(change) for change in changes), len(order)), prefixes)


def _prefixes(text: bytes, by_text: dict[bytes, int]) -> tuple[int, ...]:
    known = (by_text.get(text[:end]) for end in range(1, len(text)))
    return tuple(token for token in known if token is not None)


class Grammar:
    """A Constraint. Free it with `close`."""

    def __init__(self, tokenizer: Tokenizer, lengths: Lengths, text: str) -> None:
        """`text` has been found harmless. Raises RequestRefused where llama.cpp finds it wrong."""
        self._library = tokenizer.library
        self._lengths = lengths
        self._sampler: int | None = self._library.llama_sampler_init_grammar(
            tokenizer.vocabulary, text.encode(), ROOT
        )
        if not self._sampler:
            raise RequestRefused(
                "`grammar` is no GBNF grammar that llama.cpp takes. Compare it with the description of GBNF.",
                code="invalid_value",
                parameter="grammar",
            )

    def is_allowed(self, token: int) -> bool:
        begun = thread_time()
        for prefix in self._lengths.prefixes.get(token, ()):
            if not self._lets_through(prefix):
                break  # no further is the token itself read, unless the grammar names it by its number
            _check(begun, TOKEN_SECONDS_MAX)
        is_allowed = self._lets_through(token)
        _check(begun, TOKEN_SECONDS_MAX)
        return is_allowed

    def _lets_through(self, token: int) -> bool:
        entry = TokenData(token, 1.0, 0.0)
        self._apply(ctypes.addressof(entry), 1)
        return entry.logit > -np.inf

    def mask(self, logits: Floats) -> None:
        tokens = self._lengths.tokens
        entries: npt.NDArray[Any] = np.zeros(len(tokens), ENTRY)
        entries["id"] = tokens
        entries["logit"] = logits[tokens]
        begun = thread_time()
        start = 0
        for end in self._lengths.ends:
            self._apply(entries[start:].ctypes.data, end - start)
            _check(begun, SECONDS_MAX)
            start = end
        logits.fill(-np.inf)
        logits[tokens] = entries["logit"]

    def _apply(self, address: int, count: int) -> None:
        array = TokenDataArray(address, count, -1, False)
        self._library.llama_sampler_apply(self._sampler, ctypes.byref(array))

    def accept(self, token: int) -> None:
        self._library.llama_sampler_accept(self._sampler, token)

    def close(self) -> None:
        if self._sampler is not None:
            self._library.llama_sampler_free(self._sampler)
        self._sampler = None


def _check(begun: float, seconds_max: float) -> None:
    """Raises ConstraintBroken."""
    if thread_time() - begun > seconds_max:
        raise ConstraintBroken(
            "`grammar` can be read in too many ways at once: the answer was broken off. Let no two "
            "alternatives of a rule begin alike.",
            code="invalid_value",
            parameter="grammar",
        )
