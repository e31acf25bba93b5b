"""A dense layer's neurons become experts of one size, whose sum is the layer."""

import numpy as np
import pytest

from tests.experts.dissecting import balanced_clusters, balanced_labels, dissected

TOKENS, WIDTH, NEURONS, EXPERTS, USED = 400, 12, 48, 6, 4


@pytest.fixture(scope="module")
def layer():
    """(inputs, hidden, gate, down) with a rectifier: each neuron is at rest for half of the tokens."""
    chance = np.random.default_rng(5)
    inputs = chance.standard_normal((TOKENS, WIDTH), np.float32)
    gate = chance.standard_normal((NEURONS, WIDTH), np.float32)
    down = chance.standard_normal((WIDTH, NEURONS), np.float32)
    return inputs, np.maximum(inputs @ gate.T, 0), gate, down


def answers(mixture, inputs, hidden, used) -> np.ndarray:
    scores = inputs @ mixture.router.T
    chosen = np.zeros_like(scores)
    np.put_along_axis(chosen, np.argsort(-scores, axis=1)[:, :used], 1, 1)
    outputs = [hidden[:, ids] @ mixture.down[:, ids].T for ids in mixture.members]
    return sum(output * chosen[:, [expert]] for expert, output in enumerate(outputs))


def test_each_neuron_is_in_one_expert(layer):
    members = dissected(*layer, EXPERTS, USED).members
    assert members.shape == (EXPERTS, NEURONS // EXPERTS)
    assert sorted(members.ravel()) == list(range(NEURONS))


def test_with_all_experts_used_the_answer_is_that_of_the_layer(layer):
    inputs, hidden, _, down = layer
    mixture = dissected(*layer, EXPERTS, EXPERTS)
    np.testing.assert_allclose(answers(mixture, inputs, hidden, EXPERTS), hidden @ down.T, rtol=0, atol=1e-4)


def test_the_refit_brings_the_chosen_nearer_to_the_layer(layer):
    inputs, hidden, _, down = layer
    whole = hidden @ down.T
    refitted = dissected(*layer, EXPERTS, USED)
    plain = dissected(*layer, EXPERTS, EXPERTS)
    errors = [np.abs(answers(each, inputs, hidden, USED) - whole).mean() for each in (refitted, plain)]
    assert errors[0] < 0.9 * errors[1]


def test_who_would_lose_most_by_its_second_choice_goes_first():
    distance = np.array([[0.0, 1.0], [0.0, 9.0], [0.0, 5.0], [2.0, 0.0]], np.float32)
    assert balanced_labels(distance, 2).tolist() == [1, 0, 0, 1]


def test_clusters_find_groups_that_are_there():
    chance = np.random.default_rng(2)
    groups = np.repeat(10 * chance.standard_normal((4, 8), np.float32), 5, axis=0)
    label = balanced_clusters(groups + chance.standard_normal(groups.shape, np.float32) / 100, 4)
    assert len({tuple(label[at : at + 5]) for at in range(0, 20, 5)}) == 4
    assert all(len(set(label[at : at + 5])) == 1 for at in range(0, 20, 5))
