from dataclasses import replace

import pytest

from mesh_llm.engine.llama.sampling import LETTERS, SPELLINGS, USUAL_ORDER, Sampling, order_of

COLD = Sampling(temperature=0)


def test_every_sampler_has_a_letter_and_its_own_name():
    assert set(LETTERS.values()) == {*USUAL_ORDER, "adaptive_p"}
    assert all(SPELLINGS[name] == name for name in LETTERS.values())
    assert order_of("".join(LETTERS)) == tuple(LETTERS.values())


def test_cold_and_unpunished_is_the_likeliest():
    assert COLD.takes_likeliest and COLD.ends_greedily


@pytest.mark.parametrize(
    "change",
    [
        {"temperature": 0.1},
        {"dynamic_range": 1.0},
        {"repeat_penalty": 1.1},
        {"presence_penalty": 0.1},
        {"dry_multiplier": 0.5},
        {"biases": ((1, 1.0),)},
        {"xtc_probability": 0.5},
        {"typical_p": 0.5},
        {"mirostat": 1},
        {"order": ("temperature",)},
        {"order": ()},
    ],
    ids=str,
)
def test_whatever_may_choose_another_goes_through_the_chain(change):
    assert not replace(COLD, **change).takes_likeliest


@pytest.mark.parametrize(
    ("change", "is_greedy"),
    [
        ({"tells_probabilities": True}, False),
        ({"order": ("top_k",), "top_k": 1}, True),
        ({"order": ("temperature", "top_k")}, False),
        ({"order": ()}, False),
    ],
)
def test_the_last_sampler_tells_whether_anything_is_drawn(change, is_greedy):
    assert replace(COLD, **change).ends_greedily == is_greedy


def test_looking_for_repetitions_needs_a_multiplier_a_length_and_its_place_in_the_order():
    dry = Sampling(dry_multiplier=0.8)
    assert dry.has_dry and dry.looks_back == 64
    for change in ({"dry_last": 0}, {"mirostat": 2}, {"order": ("top_k",)}, {"dry_multiplier": 0.0}):
        assert not replace(dry, **change).has_dry
