"""Which token follows: llama.cpp's own chain of samplers, one for each answer.

Counterparts: `common_sampler_init`, `common_sampler_sample` and `common_sampler_accept` of llama.cpp's
sampling.cpp: the same links in the same order, so that an answer equals llama-server's for the same seed.
"""

import ctypes
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from mesh_llm.engine.llama.constraint import Constraint, draw_within
from mesh_llm.engine.llama.context import Context, Floats
from mesh_llm.engine.llama.declarations import LogitBias, TokenDataArray
from mesh_llm.engine.llama.model import Model
from mesh_llm.engine.llama.probabilities import Probabilities, of_candidates
from mesh_llm.engine.llama.sampling import SamplerName, Sampling

CANDIDATE = np.dtype([("id", np.int32), ("logit", np.float32), ("p", np.float32)])
"""llama_token_data"""

MIROSTAT_TOKENS = 100
"""The likeliest, of which mirostat 1 estimates the distribution (common_sampler_init)."""


class Sampler:
    """Of one answer; it remembers its tokens and its chance. Used by one thread at a time. Free it with
    `close`; one that is let go of frees itself."""

    def __init__(self, model: Model, sampling: Sampling, constraint: Constraint | None = None) -> None:
        """The constraint is the sampler's from here on. Raises nothing: who makes a Sampling has checked it.
        May take a second where it `has_dry`."""
        self._library = model.library
        self._tokens = model.tokens
        self._sampling = sampling
        self._constraint = constraint
        self._candidates: Any = None
        self._kept = TokenDataArray()
        """What the chain left of the last draw's candidates."""
        self._chain: int | None = model.library.llama_sampler_chain_init(
            model.library.llama_sampler_chain_default_params()
        )
        for link in _links(model, sampling):
            model.library.llama_sampler_chain_add(self._chain, link)

    def remember(self, prompt: Sequence[int]) -> None:
        """The prompt counts for penalties, as in llama-server (`init_sampler` of server-context.cpp)."""
        for token in prompt[max(0, len(prompt) - self._sampling.looks_back) :]:
            self._library.llama_sampler_accept(self._chain, token)

    def sample(self, context: Context, row: int) -> int:
        """The next token, from the logits of a row of the context's last batch; it is remembered. Raises
        ConstraintBroken."""
        sampling = self._sampling
        if self._constraint is None and not sampling.takes_likeliest and not sampling.tells_probabilities:
            return self._library.llama_sampler_sample(self._chain, context.handle, row)
        draw = _likeliest if sampling.takes_likeliest and not sampling.tells_probabilities else self._draw
        token = draw_within(draw, context.logits(row), self._constraint)
        if draw is not _likeliest:
            self._library.llama_sampler_accept(self._chain, token)
        if self._constraint is not None:
            self._constraint.accept(token)
        return token

    def kept(self, token: int, count: int) -> Probabilities:
        """Of the token that was sampled last, and of as many of its rivals as the chain has left, at most
        `count`. Only where the Sampling `tells_probabilities`."""
        array: Any = (ctypes.c_byte * (self._kept.size * CANDIDATE.itemsize)).from_address(self._kept.data)
        return of_candidates(np.frombuffer(array, CANDIDATE), token, count)

    def close(self) -> None:
        if self._chain is not None:
            self._library.llama_sampler_free(self._chain)
        self._chain = None
        if self._constraint is not None:
            self._constraint.close()
        self._constraint = None

    def __del__(self) -> None:
        self.close()

    def _draw(self, logits: Floats) -> int:
        """Through the chain, which does not remember it."""
        if self._candidates is None:
            self._candidates = np.zeros(self._tokens, CANDIDATE)
        candidates = self._candidates
        candidates["id"] = np.arange(self._tokens, dtype=np.int32)
        candidates["logit"] = logits
        candidates["p"] = 0
        self._kept = TokenDataArray(candidates.ctypes.data, self._tokens, -1, False)
        self._library.llama_sampler_apply(self._chain, ctypes.byref(self._kept))
        return int(candidates["id"][self._kept.selected])


def _likeliest(logits: Floats) -> int:
    return int(logits.argmax())


def _links(model: Model, sampling: Sampling) -> list[int]:
    biases = _biases(model, sampling)
    if sampling.mirostat:
        return [*biases, *_mirostat(model, sampling)]
    links = [LINKS[name](model, sampling) for name in sampling.order if name != "adaptive_p"]
    return [*biases, *links, _last_link(model, sampling)]


def _last_link(model: Model, sampling: Sampling) -> int:
    """It chooses; adaptive-p does wherever it stands in the order."""
    library = model.library
    if "adaptive_p" in sampling.order:
        return library.llama_sampler_init_adaptive_p(
            sampling.adaptive_target, sampling.adaptive_decay, sampling.seed
        )
    if sampling.ends_greedily:
        return library.llama_sampler_init_greedy()
    return library.llama_sampler_init_dist(sampling.seed)


def _mirostat(model: Model, sampling: Sampling) -> list[int]:
    library, seed = model.library, sampling.seed
    tau, eta = sampling.mirostat_tau, sampling.mirostat_eta
    temperature = library.llama_sampler_init_temp(sampling.temperature)
    if sampling.mirostat == 1:
        return [
            temperature,
            library.llama_sampler_init_mirostat(model.tokens, seed, tau, eta, MIROSTAT_TOKENS),
        ]
    return [temperature, library.llama_sampler_init_mirostat_v2(seed, tau, eta)]


def _biases(model: Model, sampling: Sampling) -> list[int]:
    """Those beyond the vocabulary are left out."""
    biases = [(token, bias) for token, bias in sampling.biases if 0 <= token < model.tokens]
    if not biases:
        return []
    array = (LogitBias * len(biases))(*(LogitBias(token, bias) for token, bias in biases))
    address = ctypes.addressof(array)  # it is copied
    return [model.library.llama_sampler_init_logit_bias(model.tokens, len(biases), address)]


def _penalties(model: Model, sampling: Sampling) -> int:
    return model.library.llama_sampler_init_penalties(
        model.tokens,
        sampling.repeat_last,
        sampling.repeat_penalty,
        sampling.frequency_penalty,
        sampling.presence_penalty,
    )


def _dry(model: Model, sampling: Sampling) -> int:
    breakers = [breaker.encode("utf-8", "replace") for breaker in sampling.dry_breakers]
    return model.library.llama_sampler_init_dry(
        model.vocabulary,
        sampling.dry_multiplier,
        sampling.dry_base,
        sampling.dry_allowed_length,
        sampling.dry_last,
        (ctypes.c_char_p * len(breakers))(*breakers),  # they are copied
        len(breakers),
    )


def _xtc(model: Model, sampling: Sampling) -> int:
    return model.library.llama_sampler_init_xtc(
        sampling.xtc_probability, sampling.xtc_threshold, sampling.keep_min, sampling.seed
    )


def _temperature(model: Model, sampling: Sampling) -> int:
    return model.library.llama_sampler_init_temp_ext(
        sampling.temperature, sampling.dynamic_range, sampling.dynamic_exponent
    )


LINKS: dict[SamplerName, Callable[[Model, Sampling], int]] = {
    "penalties": _penalties,
    "dry": _dry,
    "top_n_sigma": lambda model, sampling: model.library.llama_sampler_init_top_n_sigma(sampling.top_n_sigma),
    "top_k": lambda model, sampling: model.library.llama_sampler_init_top_k(sampling.top_k),
    "typ_p": lambda model, sampling: model.library.llama_sampler_init_typical(
        sampling.typical_p, sampling.keep_min
    ),
    "top_p": lambda model, sampling: model.library.llama_sampler_init_top_p(
        sampling.top_p, sampling.keep_min
    ),
    "min_p": lambda model, sampling: model.library.llama_sampler_init_min_p(
        sampling.min_p, sampling.keep_min
    ),
    "xtc": _xtc,
    "temperature": _temperature,
}
