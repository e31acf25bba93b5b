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
    """Of one answer, used by one thread at a time. Each method may raise ConstraintBroken."""

    def is_allowed(self, token: int) -> bool:
        """Whether it may follow; nothing changes."""
        ...

    def mask(self, logits: Floats) -> None:
        """What may not follow becomes -inf, in place. `logits` is one row, of the vocabulary's size."""
        ...

    def accept(self, token: int) -> None:
        """It has been said: one that `is_allowed` or the mask let through."""
        ...

    @property
    def is_done(self) -> bool:
        """Whether only the end may follow. The model still says it: an answer ends with its ending token."""
        ...

    def close(self) -> None:
        """Free it; nothing else may be called any more."""
        ...


Draw = Callable[[Floats], int]
"""A token from a row of logits through a chain of samplers, which does not remember it yet."""


def draw_within(draw: Draw, logits: Floats, constraint: Constraint | None) -> int:
    """As llama-server draws: first freely, and only if that is refused once more from what is allowed. The
    chain's chance is asked twice then, so that answers with a seed stay those of llama-server.

    `logits` stay as they are; whoever remembers the token calls `constraint.accept` as well."""
    token = draw(logits)
    if constraint is None or constraint.is_allowed(token):
        return token
    allowed = logits.copy()
    constraint.mask(allowed)
    return draw(allowed)
