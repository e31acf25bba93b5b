"""A constraint that waits until the answer has said something: the beginning of a tool's call.

Counterpart: lazy grammars of llama-grammar.cpp (`awaiting_trigger`). Here they wait before any kind of
grammar, and one that does not fit what was said lets the answer go free, where llama.cpp ends the process.
"""

import re
from collections import deque
from collections.abc import Iterator, Sequence

from mesh_llm.engine.head.constraints.wishes import Trigger
from mesh_llm.engine.llama.constraint import Constraint
from mesh_llm.engine.llama.context import Floats
from mesh_llm.engine.llama.tokenizer import Tokenizer

LOOKED_BACK_ON = 200
"""Tokens in which a trigger is looked for: all are shorter, and each token costs a look."""


class Lazy:
    """A Constraint."""

    def __init__(self, tokenizer: Tokenizer, inner: Constraint, triggers: Sequence[Trigger]) -> None:
        self._tokenizer = tokenizer
        self._inner = inner
        self._patterns = [_pattern(trigger) for trigger in triggers]
        self._said: deque[tuple[int, bytes]] = deque(maxlen=LOOKED_BACK_ON)
        self._is_waiting = True
        self._is_free = False

    def is_allowed(self, token: int) -> bool:
        return self._is_waiting or self._is_free or self._inner.is_allowed(token)

    def mask(self, logits: Floats) -> None:
        if not self._is_waiting and not self._is_free:
            self._inner.mask(logits)

    def accept(self, token: int) -> None:
        if self._is_free:
            return
        if not self._is_waiting:
            self._inner.accept(token)
            return
        self._said.append((token, self._tokenizer.spelled(token)))
        text = b"".join(spelled for _, spelled in self._said)
        found = [match for match in (pattern.search(text) for pattern in self._patterns) if match]
        if found:
            self._is_waiting = False
            self._catch_up(min(match.start(match.lastindex or 0) for match in found))

    def _catch_up(self, begin: int) -> None:
        """The inner constraint hears what was said from the byte `begin` of what is remembered."""
        for token in self._said_from(begin):
            if not self._inner.is_allowed(token):
                self._is_free = True
                break
            self._inner.accept(token)
        self._said.clear()

    def _said_from(self, begin: int) -> Iterator[int]:
        start = 0
        for token, spelled in self._said:
            end = start + len(spelled)
            if start >= begin:
                yield token
            elif end > begin:
                rest = spelled[begin - start :].decode("utf-8", "replace")
                yield from self._tokenizer.tokenize(rest, add_special=False, parse_special=True)
            start = end

    def close(self) -> None:
        self._inner.close()


def _pattern(trigger: Trigger) -> re.Pattern[bytes]:
    """The constrained part is its last group, or all of it."""
    text = trigger.text.encode()
    match trigger.kind:
        case "word":
            return re.compile(re.escape(text))
        case "pattern":
            return re.compile(text)
