"""How far what a cut says is from what the full model says: pure sums over tokens.

Counterpart: `perplexity` and `kl_divergence` of llama.cpp's perplexity.cpp. In nats.
"""

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

LOG_PROBABILITY_MIN = -1000.0
"""For what cannot be said at all: finite, so that 0 x it is 0."""

Row = npt.NDArray[np.float32]


def log_probabilities(logits: Row) -> Row:
    """Of a row of logits, (vocabulary,)."""
    shifted = logits.astype(np.float32) - logits.max()
    sums = float(np.exp(shifted).sum(dtype=np.float64))
    return np.maximum(shifted - np.float32(math.log(sums)), np.float32(LOG_PROBABILITY_MIN))


@dataclass(slots=True)
class Comparison:
    """Sums so far."""

    tokens: int = 0
    surprise: float = 0.0
    """Of -log p(next token)."""
    divergence: float = 0.0
    same_top: int = 0

    def add(self, row: Row, target: int, full: Row | None = None) -> None:
        """Log-probabilities of one position, the token that follows in the text, and what the full model
        said there; without it only perplexity is known."""
        self.tokens += 1
        self.surprise -= float(row[target])
        if full is not None:
            self.divergence += float(np.dot(np.exp(full), full - row))
            self.same_top += int(full[row.argmax()] >= full.max())  # 16 bits make ties

    @property
    def perplexity(self) -> float:
        return math.exp(self.surprise / self.tokens)
