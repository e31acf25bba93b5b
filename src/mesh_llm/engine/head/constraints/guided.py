"""A grammar of llguidance as a constraint: JSON of a schema, and Lark.

Counterpart: common/llguidance.cpp, which gives the same library the same text. Two things are done otherwise:
a grammar that fails ends its answer instead of ruling it no longer, and tokens are spelled as they are in the
middle of a text (there each begins one, so that some vocabularies lose a blank).
"""

from typing import Any

import llguidance
import numpy as np
import numpy.typing as npt

from mesh_llm.core.errors import RequestRefused
from mesh_llm.engine.llama.constraint import ConstraintBroken
from mesh_llm.engine.llama.context import Floats
from mesh_llm.engine.llama.tokenizer import NONE, Tokenizer

SPECIAL = b"\xff"
"""Before the text of control tokens, which are no text to llguidance."""

REASON_CHARACTERS_MAX = 300

LIMITS = llguidance.LLParserLimits(verbose_errors=False)
"""Of the library: a second of work for a grammar, 14 ms for a token, 500 MB at worst."""


class GuidedVocabulary:
    """A model's tokens as llguidance takes them. One for a process: it takes a second for a large one."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        """Raises RequestRefused where no token ends an answer."""
        self._tokenizer = tokenizer
        self.size = tokenizer.size
        self.end = tokenizer.end_of_turn if tokenizer.end_of_turn != NONE else tokenizer.end
        if self.end == NONE:
            raise RequestRefused("This model has no token that ends an answer, so no schema can rule one.")
        self.ends = frozenset({self.end, *tokenizer.ending()})
        """Each may end an answer, as with llama.cpp's own grammars."""
        self.eos_token_id = self.end
        self.bos_token_id = None
        self.tokens = [_text(tokenizer, token) for token in range(tokenizer.size)]
        self.special_token_ids: list[int] = []
        wrapper: Any = llguidance.TokenizerWrapper(self)
        self.tokens_of_llguidance = llguidance.LLTokenizer(
            wrapper, self.size, eos_token=[self.end, *sorted(self.ends - {self.end})]
        )

    def __call__(self, text: bytes | str) -> list[int]:
        """As the library asks for it."""
        whole = text if isinstance(text, str) else text.decode("utf-8", "replace")
        return self._tokenizer.tokenize(whole, add_special=False, parse_special=False)


def _text(tokenizer: Tokenizer, token: int) -> bytes:
    said = tokenizer.piece(token)
    if said:
        return said
    spelled = tokenizer.spelled(token)
    return SPECIAL + spelled if spelled else b""


class Guided:
    """A Constraint."""

    def __init__(self, vocabulary: GuidedVocabulary, matcher: llguidance.LLMatcher) -> None:
        self._vocabulary = vocabulary
        self._matcher = matcher

    def copy(self) -> "Guided":
        """For another answer, as this one stands now."""
        return Guided(self._vocabulary, self._matcher.deep_copy())

    def is_allowed(self, token: int) -> bool:
        if self._matcher.is_stopped() and not self._matcher.is_error():
            return token in self._vocabulary.ends
        is_allowed = self._matcher.validate_tokens([token]) == 1
        self._check()
        return is_allowed

    def mask(self, logits: Floats) -> None:
        bits = np.frombuffer(self._matcher.compute_bitmask(), np.uint8)
        self._check()
        allowed: npt.NDArray[np.uint8] = np.unpackbits(bits, count=self._vocabulary.size, bitorder="little")
        logits[allowed == 0] = -np.inf

    def accept(self, token: int) -> None:
        if token not in self._vocabulary.ends or not self._matcher.is_stopped():
            self._matcher.consume_token(token)
            self._check()

    def close(self) -> None:
        """It frees itself."""

    def _check(self) -> None:
        if self._matcher.is_error():
            raise ConstraintBroken(
                f"The schema or grammar has grown too complex amidst the answer: {_reason(self._matcher)}. "
                "Simplify it.",
                code="invalid_value",
            )


def compile_guided(vocabulary: GuidedVocabulary, grammar: str) -> Guided:
    """Raises RequestRefused with llguidance's reason."""
    matcher = llguidance.LLMatcher(
        vocabulary.tokens_of_llguidance, grammar, log_level=0, limits=LIMITS
    )  # it raises nothing
    guided = Guided(vocabulary, matcher)
    if not matcher.is_error():
        matcher.compute_bitmask()  # what takes long at the first token is done here, and what fails there
    if matcher.is_error():
        raise RequestRefused(
            f"The schema or grammar cannot be used: {_reason(matcher)}.", code="invalid_value"
        )
    return guided


def _reason(matcher: llguidance.LLMatcher) -> str:
    """The first line; where in a text of ours it stands says nothing to people."""
    reason = matcher.get_error().strip().partition("\n")[0]
    return reason.partition("failed to compile JSON schema: ")[2] or reason[:REASON_CHARACTERS_MAX]
