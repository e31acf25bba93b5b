"""Which token follows: llama.cpp's own chain of samplers, one for each answer.

Counterpart: `common_sampler_init` of llama.cpp's sampling.cpp; order and defaults are those of
`common_params_sampling` (common.h), so that an answer equals llama-server's for the same seed. Left out are
the samplers that are off by default and not offered (DRY, mirostat, adaptive-p): in the chain they would do
nothing.
"""

import ctypes
import math
from collections.abc import Sequence
from dataclasses import dataclass

from mesh_llm.engine.llama.context import Context
from mesh_llm.engine.llama.declarations import LogitBias
from mesh_llm.engine.llama.library import Library

NEVER = -math.inf
"""A bias that bans a token."""


@dataclass(frozen=True, slots=True)
class Sampling:
    """How an answer is sampled."""

    seed: int = 0
    """0 to 2**32 - 2: 2**32 - 1 would make llama.cpp draw one."""
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
    biases: tuple[tuple[int, float], ...] = ()
    """(token, what is added to its logit)."""


class Sampler:
    """Of one answer; it remembers its tokens and its chance. Free it with `close`."""

    def __init__(self, library: Library, tokens: int, sampling: Sampling) -> None:
        """`tokens` is the size of the vocabulary; biases beyond it are left out."""
        self._library = library
        self._chain: int | None = library.llama_sampler_chain_init(
            library.llama_sampler_chain_default_params()
        )
        self._looks_back = sampling.repeat_last
        self._takes_likeliest = _takes_likeliest(sampling)
        for link in _links(library, tokens, sampling):
            library.llama_sampler_chain_add(self._chain, link)

    def remember(self, prompt: Sequence[int]) -> None:
        """The prompt counts for penalties, as in llama-server (`init_sampler` of server-context.cpp)."""
        for token in prompt[max(0, len(prompt) - self._looks_back) :]:
            self._library.llama_sampler_accept(self._chain, token)

    def sample(self, context: Context, row: int) -> int:
        """The next token, from the logits of a row of the context's last batch; it is remembered."""
        if self._takes_likeliest:
            return int(context.logits(row).argmax())
        return self._library.llama_sampler_sample(self._chain, context.handle, row)

    def close(self) -> None:
        if self._chain is not None:
            self._library.llama_sampler_free(self._chain)
        self._chain = None


def _takes_likeliest(sampling: Sampling) -> bool:
    """Whether that is all the chain would do, over a list that it makes of the vocabulary for each token."""
    return (
        sampling.temperature <= 0
        and sampling.dynamic_range == 0
        and sampling.repeat_penalty == 1
        and sampling.frequency_penalty == sampling.presence_penalty == 0
        and not sampling.biases
        and sampling.typical_p >= 1
        and sampling.xtc_probability <= 0
    )


def _links(library: Library, tokens: int, sampling: Sampling) -> list[int]:
    keep = sampling.keep_min
    links: list[int] = []
    biases = [(token, bias) for token, bias in sampling.biases if 0 <= token < tokens]
    if biases:
        array = (LogitBias * len(biases))(*(LogitBias(token, bias) for token, bias in biases))
        links.append(
            library.llama_sampler_init_logit_bias(tokens, len(biases), ctypes.addressof(array))
        )  # it copies the array
    links += [
        library.llama_sampler_init_penalties(
            tokens,
            sampling.repeat_last,
            sampling.repeat_penalty,
            sampling.frequency_penalty,
            sampling.presence_penalty,
        ),
        library.llama_sampler_init_top_n_sigma(sampling.top_n_sigma),
        library.llama_sampler_init_top_k(sampling.top_k),
        library.llama_sampler_init_typical(sampling.typical_p, keep),
        library.llama_sampler_init_top_p(sampling.top_p, keep),
        library.llama_sampler_init_min_p(sampling.min_p, keep),
        library.llama_sampler_init_xtc(sampling.xtc_probability, sampling.xtc_threshold, keep, sampling.seed),
        library.llama_sampler_init_temp_ext(
            sampling.temperature, sampling.dynamic_range, sampling.dynamic_exponent
        ),
    ]
    if sampling.temperature <= 0 and sampling.dynamic_range == 0:
        return [*links, library.llama_sampler_init_greedy()]
    return [*links, library.llama_sampler_init_dist(sampling.seed)]
