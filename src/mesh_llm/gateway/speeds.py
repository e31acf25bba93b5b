"""How fast each model answers here, learned from its answers: what other nodes weigh this one by. Pure."""

import math

WEIGHT = 0.2
"""Of the newest answer: a handful of answers tells a change, one odd answer does not."""

TOKENS_MIN = 8
"""Shorter answers say more of the network than of the engine."""


class Speeds:
    def __init__(self) -> None:
        self._known: dict[str, float] = {}

    def note(self, model: str, tokens: int, seconds: float) -> None:
        """An answer of `tokens` took `seconds` after its first."""
        if tokens < TOKENS_MIN or seconds <= 0:
            return
        speed = (tokens - 1) / seconds
        known = self._known.get(model)
        self._known[model] = speed if known is None else known + WEIGHT * (speed - known)

    def of(self, model: str) -> float:
        """Tokens/s of one answer, two significant digits so that it seldom changes; 0 before the first."""
        known = self._known.get(model, 0.0)
        return round(known, 1 - math.floor(math.log10(known))) if known > 0 else 0.0
