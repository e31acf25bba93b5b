"""How likely a token was, and which others were: before the samplers, and after them.

Counterparts: `get_token_probabilities` of llama-server's server-common.cpp and `populate_token_probs` of its
server-context.cpp.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

from mesh_llm.engine.llama.context import Floats


@dataclass(frozen=True, slots=True)
class Probabilities:
    """Of one token of an answer, 0 to 1."""

    chosen: float
    likeliest: tuple[tuple[int, float], ...]
    """(token, probability), the likeliest first."""


def of_logits(logits: Floats, token: int, count: int) -> Probabilities:
    """Of a row of logits as the model gave it, (vocabulary,)."""
    shares = np.exp(logits - logits.max())
    shares /= shares.sum()
    first = _largest(logits, count)
    return Probabilities(float(shares[token]), tuple((int(one), float(shares[one])) for one in first))


def of_candidates(candidates: Any, token: int, count: int) -> Probabilities:
    """Of what a chain has left: records of id, logit and p. A `token` that is not among them counts as sure,
    and what has no probability at all is not told: both as in llama-server."""
    ids, shares = candidates["id"], candidates["p"]
    (place,) = np.nonzero(ids == token)
    chosen = float(shares[place[0]]) if len(place) else 1.0
    first = [one for one in _largest(shares, count) if shares[one] > 0]
    return Probabilities(chosen, tuple((int(ids[one]), float(shares[one])) for one in first))


def _largest(values: Floats, count: int) -> list[int]:
    """Their places, the largest first."""
    count = min(count, len(values))
    if count == 0:
        return []
    places = np.argpartition(values, len(values) - count)[-count:]
    return [int(place) for place in places[np.argsort(-values[places], kind="stable")]]
