"""How an answer is to be sampled: the parameters of llama.cpp's samplers, and their order. Values only.

Counterpart: `common_params_sampling` of llama.cpp's common.h, whose defaults these are; `samplers.py` makes a
chain of them.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

NEVER = -math.inf
"""A bias that bans a token."""

SamplerName = Literal[
    "penalties",
    "dry",
    "top_n_sigma",
    "top_k",
    "typ_p",
    "top_p",
    "min_p",
    "xtc",
    "temperature",
    "adaptive_p",
]
"""Left out is llama.cpp's `infill`: it compares all tokens with all others."""

USUAL_ORDER: tuple[SamplerName, ...] = get_args(SamplerName)[:-1]

LETTERS: dict[str, SamplerName] = {
    "e": "penalties",
    "d": "dry",
    "s": "top_n_sigma",
    "k": "top_k",
    "y": "typ_p",
    "p": "top_p",
    "m": "min_p",
    "x": "xtc",
    "t": "temperature",
    "a": "adaptive_p",
}
"""common_sampler_type_to_chr."""

OTHER_NAMES: dict[str, SamplerName] = {"nucleus": "top_p", "temp": "temperature", "typ": "typ_p"}


def _spellings() -> dict[str, SamplerName]:
    """Every way a name may be written: common_sampler_types_from_names."""
    known = dict(OTHER_NAMES)
    for name in LETTERS.values():
        known |= dict.fromkeys((name, name.replace("_", "-"), name.replace("_", "")), name)
    return known


SPELLINGS = _spellings()


def order_of(asked: str | Sequence[str]) -> tuple[SamplerName, ...]:
    """`samplers` of a request: letters, or names. What llama.cpp does not know it leaves out, and so do we:
    clients send what other engines have."""
    if isinstance(asked, str):
        return tuple(LETTERS[letter] for letter in asked if letter in LETTERS)
    names = [name.lower() for name in asked]
    return tuple(SPELLINGS[name] for name in names if name in SPELLINGS)


@dataclass(frozen=True, slots=True)
class Sampling:
    """How an answer is sampled."""

    seed: int = 0
    """0 to 2**32 - 2: 2**32 - 1 would make llama.cpp draw one."""
    order: tuple[SamplerName, ...] = USUAL_ORDER
    temperature: float = 0.8
    """0 or less: always the likeliest."""
    dynamic_range: float = 0.0
    dynamic_exponent: float = 1.0
    top_k: int = 40
    """0: all."""
    top_p: float = 0.95
    min_p: float = 0.05
    typical_p: float = 1.0
    top_n_sigma: float = -1.0
    xtc_probability: float = 0.0
    xtc_threshold: float = 0.1
    keep_min: int = 0
    """Tokens that top-p, min-p, typical and XTC leave at least."""
    repeat_last: int = 64
    """Tokens of prompt and answer that the penalties look back on."""
    repeat_penalty: float = 1.0
    """Finite, more than 0."""
    frequency_penalty: float = 0.0
    presence_penalty: float = 0.0
    dry_multiplier: float = 0.0
    """0: off."""
    dry_base: float = 1.75
    """1 or more."""
    dry_allowed_length: int = 2
    """Tokens that may be repeated in a row unpunished."""
    dry_last: int = 64
    """Tokens of prompt and answer in which repetitions are looked for."""
    dry_breakers: tuple[str, ...] = ("\n", ":", '"', "*")
    """Texts over which nothing counts as a repetition."""
    mirostat: int = 0
    """1 or 2: this version of it is all there is beside the temperature."""
    mirostat_tau: float = 5.0
    mirostat_eta: float = 0.1
    adaptive_target: float = -1.0
    """Less than 0: off."""
    adaptive_decay: float = 0.9
    biases: tuple[tuple[int, float], ...] = ()
    """(token, what is added to its logit)."""
    tells_probabilities: bool = False
    """Whether those of each token's rivals are asked for: then there must be a distribution to the end."""

    @property
    def has_dry(self) -> bool:
        """llama.cpp goes through its whole vocabulary for each of the breakers then."""
        return not self.mirostat and "dry" in self.order and self.dry_multiplier != 0 and self.dry_last > 0

    @property
    def looks_back(self) -> int:
        """Tokens of the prompt that matter."""
        return max(self.repeat_last, self.dry_last)

    @property
    def ends_greedily(self) -> bool:
        """Whether the last link takes the likeliest instead of drawing: `common_sampler_init`."""
        if self.tells_probabilities or not self.order:
            return False
        last = self.order[-1]
        is_cold = self.temperature == 0 and self.dynamic_range == 0
        return (last == "temperature" and is_cold) or (last == "top_k" and self.top_k == 1)

    @property
    def takes_likeliest(self) -> bool:
        """Whether the chain would do no more, over a list that it makes of the vocabulary for each token."""
        return (
            self.order == USUAL_ORDER
            and not self.mirostat
            and self.temperature <= 0
            and self.dynamic_range == 0
            and self.repeat_penalty == 1
            and self.frequency_penalty == self.presence_penalty == 0
            and not self.has_dry
            and not self.biases
            and self.typical_p >= 1
            and self.xtc_probability <= 0
        )
