"""Wishes into constraints: the one place that knows which library does which.

Counterpart: the choice in `common_sampler_init` of sampling.cpp. Both libraries read by recursion and some
texts take long, so each is read in a thread of its own with a deep stack, one after the other.
"""

import re
import threading
from collections import OrderedDict
from collections.abc import Callable
from math import prod
from typing import TypeVar

from mesh_llm.core.errors import RequestRefused, Unavailable
from mesh_llm.engine.head.constraints.gbnf import CHARACTERS_MAX, check_gbnf
from mesh_llm.engine.head.constraints.guided import Guided, GuidedVocabulary, compile_guided
from mesh_llm.engine.head.constraints.lazy import Lazy
from mesh_llm.engine.head.constraints.wishes import LLGUIDANCE, Wish
from mesh_llm.engine.llama.constraint import Constraint
from mesh_llm.engine.llama.grammar import Grammar, Lengths, lengths_of
from mesh_llm.engine.llama.tokenizer import Tokenizer

STACK_BYTES = 256 * 1024 * 1024
"""Address space, not memory. A chain of 1,200 definitions, which is what a text of the longest can hold,
takes 10 MB."""

KEPT_MAX = 16
"""Grammars that are ready for the next request with the same one."""

WAIT_SECONDS_MAX = 60.0
RETRY_AFTER_S = 5

MULTIPLES_MAX = 100_000
"""llguidance counts through all remainders: a million take 20 s."""

MULTIPLE = re.compile(r'"multipleOf"\s*:\s*-?([0-9.]+)')

R = TypeVar("R")


class Compiler:
    """For one model. From any thread."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._turn = threading.Lock()
        self._vocabulary: GuidedVocabulary | None = None
        self._lengths: Lengths | None = None
        self._kept: OrderedDict[str, Guided] = OrderedDict()

    def compile(self, wish: Wish) -> Constraint:
        """Blocks, up to seconds. Raises RequestRefused, and Unavailable where others take too long."""
        if len(wish.grammar) > CHARACTERS_MAX:
            raise RequestRefused(
                f"The schema or grammar has {len(wish.grammar)} characters. Use at most {CHARACTERS_MAX}.",
                code="invalid_value",
            )
        inner = self._ruling(wish.grammar)
        return Lazy(self._tokenizer, inner, wish.triggers) if wish.triggers else inner

    def _ruling(self, grammar: str) -> Constraint:
        is_guided = grammar.startswith(LLGUIDANCE)
        if is_guided:
            check_multiples(grammar)
        else:
            check_gbnf(grammar)
        if not self._turn.acquire(timeout=WAIT_SECONDS_MAX):
            raise Unavailable("too many schemas and grammars are being read", retry_after_s=RETRY_AFTER_S)
        try:
            return on_deep_stack(lambda: self._guided(grammar) if is_guided else self._grammar(grammar))
        finally:
            self._turn.release()

    def _guided(self, grammar: str) -> Constraint:
        if self._vocabulary is None:
            self._vocabulary = GuidedVocabulary(self._tokenizer)
        known = self._kept.pop(grammar, None) or compile_guided(self._vocabulary, grammar)
        self._kept[grammar] = known
        if len(self._kept) > KEPT_MAX:
            self._kept.popitem(last=False)
        return known.copy()

    def _grammar(self, grammar: str) -> Constraint:
        if self._lengths is None:
            self._lengths = lengths_of(self._tokenizer)
        return Grammar(self._tokenizer, self._lengths, grammar)


def check_multiples(grammar: str) -> None:
    """Raises RequestRefused."""
    numbers = {number.replace(".", "").strip("0") for number in MULTIPLE.findall(grammar)}
    if any(len(number) > len(str(MULTIPLES_MAX)) for number in numbers) or (
        prod(int(number or 1) for number in numbers) > MULTIPLES_MAX
    ):
        raise RequestRefused(
            f"The schema's `multipleOf` are too large: all multiplied they may be {MULTIPLES_MAX}.",
            code="invalid_value",
        )


def on_deep_stack(work: Callable[[], R]) -> R:
    """Raises what the work raises."""
    results: list[R] = []
    errors: list[RequestRefused] = []

    def run() -> None:
        try:
            results.append(work())
        except RequestRefused as error:
            errors.append(error)

    before = threading.stack_size(STACK_BYTES)
    try:
        thread = threading.Thread(target=run, name="reading a grammar")
        thread.start()
    finally:
        threading.stack_size(before)
    thread.join()
    if errors:
        raise errors[0]
    return results[0]
