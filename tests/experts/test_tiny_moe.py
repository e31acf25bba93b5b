"""The random mixtures load and compute, and masked experts are the ones that are missing."""

import numpy as np
import pytest

from tests.engine.stage.chains import whole
from tests.experts.tiny_moe import TINY_MIXTURES, write_tiny_mixture

pytestmark = pytest.mark.real

TOKENS = [token % 250 + 3 for token in range(7, 7 + 31 * 24, 31)]


def logits(path) -> np.ndarray:
    with whole(path) as model:
        return model("decode", [0] * len(TOKENS), list(range(len(TOKENS))), tokens=TOKENS)


@pytest.mark.parametrize("name", TINY_MIXTURES)
def test_a_tiny_mixture_computes_with_the_experts_that_are_not_masked(tmp_path, name):
    mixture = TINY_MIXTURES[name]
    (full,) = write_tiny_mixture(tmp_path / "full.gguf", name)
    expected = logits(full)
    assert np.isfinite(expected).all()
    if mixture.selection_bias is None:
        return
    masked = dict.fromkeys(mixture.expert_layers, (1, 5))
    (path,) = write_tiny_mixture(tmp_path / "masked.gguf", name, masked=masked)
    assert np.abs(logits(path) - expected).max() > 0.1


def test_an_architecture_without_a_bias_of_selection_cannot_be_masked(tmp_path):
    with pytest.raises(ValueError, match="no bias of selection"):
        write_tiny_mixture(tmp_path / "masked.gguf", "olmoe", masked={0: (1,)})
