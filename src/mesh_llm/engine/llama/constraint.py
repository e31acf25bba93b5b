"""What an answer may not say, and how a token is drawn that keeps to it.

Counterpart: `common_sampler_sample` of llama.cpp's sampling.cpp. Who writes constraints (`head/constraints/`,
`grammar.py`) and what a chain of samplers is made of (`samplers.py`) is not known here.
"""

from collections.abc import Callable
from typing import Protocol

from mesh_llm.core.errors import RequestRefused
from mesh_llm.engine.llama.context import Floats


class ConstraintBroken(RequestRefused):
    """Its grammar has grown too complex amidst an answer, which therefore ends: no other one does."""


class Constraint(Protocol):
    """Of one answer, used by one thread at a time. Each method may raise ConstraintBroken.

    That only the end may follow is no reason to stop: the model still says its ending token."""

    def is_allowed(self, token: int) -> bool:
        """Whether it may follow; nothing changes."""
        ...

    def mask(self, logits: Floats) -> None:
        """What may not follow becomes -inf, in place. `logits` is one row, of the vocabulary's size."""
        ...

    def accept(self, token: int) -> None:
        """It has been said: one that `is_allowed` or the mask let through."""
        ...

    def close(self) -> None:
        """Free it; nothing else may be called any more."""
        ...


Draw = Callable[[Floats], int]
"""A token from a row of logits through a chain of samplers, which does not remember it yet."""


def draw_within(draw: Draw, logits: Floats, constraint: Constraint | None) -> int:
    """As llama-server draws: first freely, and only if that is refused once more from what is allowed. The
    chain's chance is asked twice then, so that answers with a seed stay those of llama-server.

    `logits` stay as they are; whoever remembers the token calls `constraint.accept` as well. Raises
    ConstraintBroken, also where all that is allowed is banned elsewhere."""
    token = draw(logits)
    if constraint is None or constraint.is_allowed(token):
        return token
    allowed = logits.copy()
    constraint.mask(allowed)
    token = draw(allowed)
    if not constraint.is_allowed(token):
        raise ConstraintBroken(
            "Nothing that the grammar or schema allows can be drawn: the answer was broken off. Ban fewer "
            "tokens with `logit_bias` or `ignore_eos`.",
            code="invalid_value",
        )
    return token
